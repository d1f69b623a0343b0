//! Machines that are well from the beginning: each is made once for its inputs, kept in the cache, and started many times.
//!
//! ```text
//! saved/NAME/        what a name has is replaced when its inputs change
//!   inputs           digest of QEMU's command line, firmware and disk image; written last
//!   memory           processors, devices and memory: QEMU's migration stream, "mapped-ram"
//!   disk.raw         the disk when it was saved, synced
//!   variables.fd     the firmware's variables
//! ```
//!
//! A clone has a copy of disk and variables, and its own memory. It has the machine-id and the nonce of the start of the
//! machine that was saved. Its console begins empty: what a boot says is not asked of it. Its clock is set, and the kernel
//! takes new randomness by `vmgenid` where QEMU has one. What does not come up is made anew, and where that fails, or the
//! scenarios are to run from power-on, the machine boots.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use boot_core::{Architecture, Digest};
use serde_json::json;

use crate::artefacts::Version;
use crate::disk::Disk;
use crate::machine::{Machine, Options, VARIABLES};
use crate::qmp::Qmp;
use crate::scenario::{Begins, Context};

/// How long QEMU may take to write or to read a machine's memory.
const TRANSFER: Duration = Duration::from_secs(300);
/// How long a clone may take until it can be logged into, which takes three seconds on an idle host.
const AWAKE: Duration = Duration::from_secs(300);

impl Context {
    /// A machine on which [`Version::First`] is well: its disk, and the machine, which can be logged into. What it has
    /// said up to here is not on its console.
    ///
    /// # Errors
    /// The scenario does not say that it begins so, or the machine does not become well.
    pub fn well(&self, options: Options) -> Result<(Disk, Machine<'_>)> {
        let scenario = self.scenario();
        ensure!(
            scenario.begins != Begins::PowerOn,
            "{} begins at power-on",
            scenario.name
        );
        if !self.is_from_power_on() {
            match cloned(self, &options) {
                Ok(found) => return Ok(found),
                Err(error) => eprintln!("{}: boots, because {error:#}", scenario.name),
            }
        }
        let disk = self.first_disk()?;
        let mut machine = self.start_as(&disk, options)?;
        machine.wait_for_boot(machine.boot_limit())?;
        machine.wait_until_good(Version::First.number())?;
        Ok((disk, machine))
    }
}

impl Context {
    fn start_as(&self, disk: &Disk, options: Options) -> Result<Machine<'_>> {
        match options.record {
            None => self.start(&[disk], options),
            Some(_) => self.start_recorded(disk, options),
        }
    }
}

/// A clone of the saved machine, which is made if it is not there, and once more if it does not come up.
fn cloned<'c>(context: &'c Context, options: &Options) -> Result<(Disk, Machine<'c>)> {
    let saved = Saved::of(context, options)?;
    // One scenario at a time: whoever comes while it is made has it then, and it is not removed under anybody's hands.
    let _one = context.artefacts().saving()?;
    saved.is_there(context, options)?;
    match saved.start(context, options) {
        Ok(found) => Ok(found),
        Err(error) => {
            eprintln!(
                "{}: made anew, because {error:#}",
                saved.directory.display()
            );
            saved.forget()?;
            saved.is_there(context, options)?;
            saved.start(context, options)
        }
    }
}

struct Saved {
    directory: PathBuf,
    inputs: Digest,
}

impl Saved {
    /// Where it is kept, and what it has to be made of. Nothing is made yet.
    fn of(context: &Context, options: &Options) -> Result<Saved> {
        ensure!(
            options.extra.is_empty(),
            "a machine with {:?} is not saved",
            options.extra
        );
        let scenario = context.scenario();
        let name = format!(
            "{}-{}-{}-{}x{}{}",
            scenario.recipe,
            scenario.architecture.name(),
            options.bus,
            options.cpus,
            options.memory,
            if options.watchdog { "-watchdog" } else { "" }
        );
        let disk = context.image(Version::First)?.disk();
        // On an image that stays where it is, so that the command line is the same each time.
        let mut print = options.command(context, &disk, 512);
        print.arg("--print").arg("--").args(devices(context));
        let printed = output(&mut print)?;
        let command_line = printed.replace(&*context.directory().to_string_lossy(), "");
        let mut inputs = format!("{command_line}\n{}\n", output(&mut sum(&disk))?);
        // Firmware and QEMU are files of one tree.
        for word in command_line.split([',', ' ']) {
            let file = word.strip_prefix("file=").unwrap_or_default();
            if file.ends_with(".fd") && Path::new(file).exists() {
                inputs += &output(&mut sum(Path::new(file)))?;
            }
        }
        Ok(Saved {
            directory: context.artefacts().saved().join(name),
            inputs: Digest::of(inputs.as_bytes()),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn forget(&self) -> Result<()> {
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)
                .with_context(|| format!("cannot remove {}", self.directory.display()))?;
        }
        Ok(())
    }

    /// Makes it unless it is there.
    fn is_there(&self, context: &Context, options: &Options) -> Result<()> {
        let kept = std::fs::read_to_string(self.file("inputs")).ok();
        if kept.as_deref() == Some(&self.inputs.to_string()) {
            return Ok(());
        }
        let began = Instant::now();
        self.forget()?;
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        let image = context.image(Version::First)?;
        let disk = Disk::copy(&image.disk(), &self.file("disk.raw"), 512)?;
        let mut options = options.clone();
        options.record = None;
        options.extra = devices(context);
        let mut machine = context.start_well(&[&disk], options, Version::First)?;
        machine.run("sync")?;
        let mut qmp = machine.qmp()?;
        qmp.command("stop", &json!({}))?;
        capable(&mut qmp)?;
        transfer(&mut qmp, "migrate", &self.file("memory"))?;
        drop(qmp);
        machine.switch_off();
        // The next machine of this run is another one.
        let variables = context.file(VARIABLES);
        std::fs::rename(&variables, self.file("variables.fd"))
            .with_context(|| format!("cannot keep {}", variables.display()))?;
        std::fs::write(self.file("inputs"), self.inputs.to_string())
            .with_context(|| format!("cannot keep {}", self.directory.display()))?;
        eprintln!(
            "saved {} in {} s",
            self.directory.display(),
            began.elapsed().as_secs()
        );
        Ok(())
    }

    /// A clone, running, its clock set.
    fn start<'c>(&self, context: &'c Context, options: &Options) -> Result<(Disk, Machine<'c>)> {
        let disk = context.disk(&self.file("disk.raw"), "disk.raw", 512)?;
        let variables = context.file(VARIABLES);
        std::fs::copy(self.file("variables.fd"), &variables)
            .with_context(|| format!("cannot make {}", variables.display()))?;
        let mut options = options.clone();
        options.extra = devices(context);
        options
            .extra
            .extend(["-incoming", "defer"].map(str::to_owned));
        let mut machine = context.start_as(&disk, options)?;
        let mut qmp = machine.qmp()?;
        capable(&mut qmp)?;
        transfer(&mut qmp, "migrate-incoming", &self.file("memory"))?;
        qmp.command("cont", &json!({}))?;
        drop(qmp);
        machine.wait_for_ssh(AWAKE)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        machine.run(&format!("date -s @{now}"))?;
        Ok((disk, machine))
    }
}

/// What a machine has beside the usual, so that clones of it are not alike in their random numbers.
fn devices(context: &Context) -> Vec<String> {
    match context.scenario().architecture {
        Architecture::X86_64 => ["-device", "vmgenid,guid=auto"].map(str::to_owned).into(),
        Architecture::Aarch64 => Vec::new(),
    }
}

/// Memory goes to its place in a file, of which only what is not zero is written, by several threads.
fn capable(qmp: &mut Qmp) -> Result<()> {
    let on = |name| json!({"capability": name, "state": true});
    let capabilities = json!({"capabilities": [on("mapped-ram"), on("multifd")]});
    qmp.command("migrate-set-capabilities", &capabilities)
}

fn transfer(qmp: &mut Qmp, command: &str, memory: &Path) -> Result<()> {
    let uri = format!("file:{}", memory.display());
    qmp.command(command, &json!({ "uri": uri }))?;
    let deadline = Instant::now() + TRANSFER;
    while Instant::now() < deadline {
        let state = qmp.ask("query-migrate", &json!({}))?;
        match state["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed") => bail!("{command}: {state}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    bail!("{command} took longer than {} s", TRANSFER.as_secs())
}

fn sum(file: &Path) -> Command {
    let mut command = Command::new("sha256sum");
    command.arg(file);
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(anyhow!("{command:?}: {}", said(&output.stderr)));
    }
    Ok(said(&output.stdout))
}
