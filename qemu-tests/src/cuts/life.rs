//! The lives that are cut: each is lived once, in peace, while QEMU records what is written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use boot_core::Target;
use serde::{Deserialize, Serialize};

use super::log::{Kind, Log};
use crate::artefacts::Version;
use crate::disk::Disk;
use crate::machine::{Machine, Options};
use crate::scenario::Context;
use crate::server::Server;
use crate::slots;
use crate::steps::REBOOT;

/// A file on `state`, written and synced before anything is cut or installed: no cut may lose it.
pub const WITNESS: &str = "/var/lib/witness";

const FIRST_BOOT: &str = "first boot";
const INSTALLATION: &str = "installation";

/// How large a machine's disk is: larger than the image, so that the first boot has a table to move and `state` to grow.
const DISK: u64 = 6 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// First boot, an installation, its activation, the first boot after it.
    Upgrade,
    /// A machine that was well, both of whose slots are damaged: recovery comes up and installs by itself.
    Recovery,
}

/// A stretch of a life, as entries of its log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// What happens in it.
    pub name: String,
    /// Its first entry.
    pub from: usize,
    /// The first one after it.
    pub to: usize,
    /// Entries that write boot-state.
    pub commits: Vec<usize>,
    /// [`WITNESS`] was there when it began.
    pub has_witness: bool,
}

impl Phase {
    /// Whether only the first version may run after a cut in it.
    #[must_use]
    pub fn is_before_activation(&self) -> bool {
        [FIRST_BOOT, INSTALLATION].contains(&self.name.as_str())
    }
}

/// A life that was recorded.
#[derive(Debug)]
pub struct Recorded {
    pub life: Life,
    /// The disk as it was before.
    pub before: Disk,
    /// What was written.
    pub log: Log,
    /// Its stretches, in order.
    pub phases: Vec<Phase>,
}

impl Life {
    /// Both.
    pub const ALL: [Life; 2] = [Life::Upgrade, Life::Recovery];

    /// In a file's name and a result.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Life::Upgrade => "upgrade",
            Life::Recovery => "recovery",
        }
    }

    /// What the machine is made of.
    #[must_use]
    pub fn machine(self) -> Options {
        Options {
            memory: match self {
                Life::Upgrade => 1024,
                // The recovery system is in memory as a whole.
                Life::Recovery => 2048,
            },
            ..Options::default()
        }
    }

    /// Takes the recording of this life from `directory`, or makes it there.
    ///
    /// # Errors
    /// The machine is not well at some point of it, or a file cannot be written.
    pub fn recorded(
        self,
        context: &Context,
        directory: &Path,
        server: &Server,
    ) -> Result<Recorded> {
        let paths = Paths::new(&directory.join(self.name()));
        if !paths.phases.exists() {
            eprintln!("recording the life `{}` ...", self.name());
            std::fs::create_dir_all(directory.join(self.name()))
                .context("cannot make a directory for the recording")?;
            let phases = self.record(context, &paths, server)?;
            // Last: a recording that was interrupted is made anew.
            std::fs::write(&paths.phases, serde_json::to_vec_pretty(&phases)?)
                .context("cannot keep the recording")?;
        }
        let phases = std::fs::read(&paths.phases).context("cannot read the recording")?;
        Ok(Recorded {
            life: self,
            before: Disk::open(&paths.before, 512),
            log: Log::open(&paths.log)?,
            phases: serde_json::from_slice(&phases)?,
        })
    }

    fn record(self, context: &Context, paths: &Paths, server: &Server) -> Result<Vec<Phase>> {
        let image = context.image(Version::First)?;
        let before = Disk::copy(&image.disk(), &paths.before, 512)?;
        before.grow(DISK)?;
        if self == Life::Recovery {
            was_well(context, &before, server)?;
            slots::twin(&before, true)?;
            slots::damage_uki(&before, Target::A)?;
            slots::damage_uki(&before, Target::B)?;
        }
        let live = Disk::copy(before.path(), &context.file("recorded.raw"), 512)?;
        let options = Options {
            record: Some(paths.log.clone()),
            ..self.machine()
        };
        let mut machine = context.start(&[&live], options)?;
        let mut phases = Phases::new(&paths.log, self == Life::Recovery);
        match self {
            Life::Upgrade => upgrade(&mut machine, server, &mut phases)?,
            Life::Recovery => recovery(&mut machine, &mut phases)?,
        }
        machine.switch_off();
        std::fs::remove_file(live.path()).context("cannot remove the recorded machine's disk")?;
        phases.finish(&before)
    }
}

fn upgrade(machine: &mut Machine<'_>, server: &Server, phases: &mut Phases<'_>) -> Result<()> {
    machine.wait_for_boot(machine.boot_limit())?;
    machine.wait_until_good(Version::First.number())?;
    phases.end(FIRST_BOOT)?;
    machine.run(&format!("echo kept >{WITNESS} && sync"))?;
    phases.witness()?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    machine.run_within(&install, Duration::from_secs(300))?;
    phases.end(INSTALLATION)?;
    // The reboot ends the connection; that the machine comes back says that it worked.
    let _ = machine.run("bootctl activate --now");
    machine.wait_for_boot(REBOOT)?;
    phases.end("activation")?;
    machine.wait_until_good(Version::Second.number())?;
    phases.end("first boot after it")
}

/// A first life in peace: version 1.0.0 is well, and its profile says what recovery is to install.
fn was_well(context: &Context, disk: &Disk, server: &Server) -> Result<()> {
    let mut machine = context.start_well(&[disk], Options::default(), Version::First)?;
    machine.run(&format!("echo kept >{WITNESS} && sync"))?;
    machine.have_recovery_install(&server.url("bundle.spb"))
}

fn recovery(machine: &mut Machine<'_>, phases: &mut Phases<'_>) -> Result<()> {
    machine.wait_for_line("starting recovery", machine.boot_limit())?;
    machine.wait_for_line(RECOVERY_PROMPT, machine.boot_limit())?;
    phases.end("recovery comes up")?;
    machine.wait_for_boot(Duration::from_secs(600) + REBOOT)?;
    phases.end("recovery installs")?;
    machine.wait_until_good(Version::Second.number())?;
    phases.end("first boot after recovery")
}

/// What recovery says when somebody could type.
pub const RECOVERY_PROMPT: &str = "root@";

/// The server that has the second version, always on the same port: it is in the profile of machines that were recorded.
///
/// # Errors
/// The port is taken, or nothing can be kept in `directory`.
pub fn server(context: &Context, directory: &Path) -> Result<Server> {
    /// Below those that the kernel gives to whoever asks for any, which would be taken when they are wanted again.
    const PORTS: std::ops::Range<u16> = 18_000..19_000;
    let kept = directory.join("port");
    let image = context.image(Version::Second)?;
    if let Ok(port) = std::fs::read_to_string(&kept) {
        let port = port
            .trim()
            .parse()
            .context("the port that was kept is no number")?;
        return Server::start_on(image.directory(), port)
            .with_context(|| format!("without {}, lives are recorded anew", directory.display()));
    }
    let server = PORTS
        .into_iter()
        .find_map(|port| Server::start_on(image.directory(), port).ok())
        .context("no port is free on the host")?;
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&kept, server.port().to_string()))
        .with_context(|| format!("cannot write {}", kept.display()))?;
    Ok(server)
}

impl Recorded {
    /// How many entries the start of a machine makes up to its verdict; in recovery's life, up to the end of its
    /// installation.
    #[must_use]
    pub fn writes_of_a_start(&self) -> usize {
        let phases = match self.life {
            Life::Upgrade => self.phases.iter().rev().take(1).collect::<Vec<_>>(),
            Life::Recovery => self.phases.iter().take(2).collect(),
        };
        phases.iter().map(|phase| phase.to - phase.from).sum()
    }

    /// Where to cut, and in which stretch: anywhere in it, or (every other time) near a commit of the record.
    #[must_use]
    pub fn moment(&self, chance: &mut fastrand::Rng) -> Option<(&Phase, usize)> {
        /// Entries around a commit that are near it.
        const NEAR: usize = 4;
        let phase = chance.choice(&self.phases)?;
        let anywhere = chance.usize(phase.from..=phase.to);
        let at = match chance.choice(&phase.commits) {
            Some(commit) if chance.bool() => chance
                .usize(commit.saturating_sub(NEAR)..=commit + NEAR)
                .clamp(phase.from, phase.to),
            _ => anywhere,
        };
        Some((phase, at))
    }
}

struct Paths {
    before: PathBuf,
    log: PathBuf,
    phases: PathBuf,
}

impl Paths {
    fn new(directory: &Path) -> Paths {
        Paths {
            before: directory.join("before.raw"),
            log: directory.join("writes.log"),
            phases: directory.join("phases.json"),
        }
    }
}

/// Notes how far the log is at each turn of a life.
struct Phases<'p> {
    log: &'p Path,
    done: Vec<Phase>,
    at: usize,
    has_witness: bool,
}

impl<'p> Phases<'p> {
    fn new(log: &'p Path, has_witness: bool) -> Phases<'p> {
        Phases {
            log,
            done: Vec::new(),
            at: 0,
            has_witness,
        }
    }

    fn end(&mut self, name: &str) -> Result<()> {
        let to = Log::open(self.log)?.entries.len();
        self.done.push(Phase {
            name: name.to_owned(),
            from: self.at,
            to,
            commits: Vec::new(),
            has_witness: self.has_witness,
        });
        self.at = to;
        Ok(())
    }

    /// From here on the witness is there.
    fn witness(&mut self) -> Result<()> {
        self.has_witness = true;
        self.at = Log::open(self.log)?.entries.len();
        Ok(())
    }

    fn finish(mut self, disk: &Disk) -> Result<Vec<Phase>> {
        let log = Log::open(self.log)?;
        let (start, size) = disk.bounds("boot-state")?;
        for phase in &mut self.done {
            let commits = |at: &usize| {
                let entry = &log.entries[*at];
                matches!(entry.kind, Kind::Write { .. })
                    && (start..start + size).contains(&entry.start)
            };
            phase.commits = (phase.from..phase.to).filter(commits).collect();
        }
        Ok(self.done)
    }
}
