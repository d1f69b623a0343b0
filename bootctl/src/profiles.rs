//! The profile of this machine: which one, what it turns into, and the part of it that has to be
//! there early in the boot.
//!
//! A profile on `state` that is not valid does not leave the machine without network and users: the
//! image's own is used, and `status`, `health` and the health gate say so. Recovery takes from a profile
//! what makes a machine reachable and what it is to install by itself, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use boot_core::Target;
use profile::{ImageFacts, MachineFacts, Rendered, When};
use serde::{Deserialize, Serialize};

use crate::clock::{self, Clock, Known};
use crate::failure::{Code, Doing, Failure, Result};
use crate::machine::{BootFacts, Paths, read_json, target_name, write_whole};

/// The profile that is in force.
pub struct Chosen {
    /// Where it lies.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it turns into.
    pub rendered: Rendered,
    /// Why the one on `state` is not it.
    pub problem: Option<String>,
}

/// What `profile apply` did, in `/run/sternpost/applied.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    /// Which profile.
    pub profile: PathBuf,
    /// Why the one on `state` was not used.
    pub problem: Option<String>,
    /// About the clock.
    pub clock: Option<Clock>,
}

fn invalid(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Profile, what)
}

/// What the image says it is.
pub fn image_facts(paths: &Paths) -> Result<ImageFacts> {
    read_json(&paths.image("image.json"))
}

/// What is known of this machine.
fn machine_facts(paths: &Paths) -> MachineFacts {
    let line = |path: &Path| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    MachineFacts {
        machine_id: line(&paths.at("/etc/machine-id")),
        boot_id: boot_id(),
    }
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Where the profile of this machine lies.
pub fn location(paths: &Paths) -> PathBuf {
    candidates(paths).swap_remove(0)
}

/// Where a profile of this machine may lie: the one that counts first, the image's last.
///
/// A recovery system has none of its own. What a good slot last ran with comes first there, because the machine could
/// be reached with it: a newer one may be what brought it here.
fn candidates(paths: &Paths) -> Vec<PathBuf> {
    let good = is_recovery(paths).then(|| paths.state(GOOD));
    let own = good.into_iter().chain([paths.state("profile.yaml")]);
    own.filter(|path| path.exists())
        .chain([paths.image("profile.yaml")])
        .collect()
}

/// The profile that a good slot last ran with, for recovery.
const GOOD: &str = "good-profile.yaml";

/// Keeps `chosen`, with which the machine is healthy, for recovery.
pub fn keep_for_recovery(paths: &Paths, chosen: &Chosen) {
    let path = paths.state(GOOD);
    if fs::read(&path).is_ok_and(|kept| kept == chosen.text.as_bytes()) {
        return;
    }
    // It may hold password hashes.
    if let Err(e) = write_whole(&path, chosen.text.as_bytes(), 0o600, true) {
        eprintln!("bootctl: keeping the profile for recovery: {e}");
    }
}

/// Whether it is the recovery system that runs.
fn is_recovery(paths: &Paths) -> bool {
    read_json::<BootFacts>(&paths.run("boot.json"))
        .is_ok_and(|facts| facts.slot == target_name(Target::Recovery))
}

/// What an image without a profile of its own is to be, the recovery system for one.
const NOTHING_SAID: &str = "version: 1\nhostname: node-{machine-id:8}\n";

/// Reads, checks and renders the profile at `path`.
pub fn load(paths: &Paths, path: &Path, image: &ImageFacts) -> Result<(String, Rendered)> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e)
            if e.kind() == std::io::ErrorKind::NotFound && path == paths.image("profile.yaml") =>
        {
            NOTHING_SAID.to_owned()
        }
        Err(e) => {
            return Err(invalid(e)
                .doing(format!("reading the profile {}", path.display()))
                .next("name a profile that can be read; docs/guides describe what goes into one"));
        }
    };
    let name = path.display().to_string();
    let read = if is_recovery(paths) {
        profile::parse(&text, &name).map(profile::Profile::of_host)
    } else {
        profile::parse_for(&text, &name, image)
    };
    let profile =
        read.map_err(|diagnostics| invalid(format!("the profile is not valid\n{diagnostics}")))?;
    let rendered = profile::render(&profile, image, &machine_facts(paths))
        .map_err(|e| invalid(e).doing(format!("rendering the profile {}", path.display())))?;
    Ok((text, rendered))
}

/// Reads the profile of this machine, or the image's if the machine's own is not valid.
pub fn choose(paths: &Paths) -> Result<Chosen> {
    let image = image_facts(paths)?;
    let mut wrong: Option<(PathBuf, Failure)> = None;
    for path in candidates(paths) {
        match load(paths, &path, &image) {
            Ok((text, rendered)) => {
                let problem = wrong.map(|(instead, failure)| {
                    let first = failure.what.lines().take(2).collect::<Vec<_>>().join(": ");
                    let own = if path == paths.image("profile.yaml") {
                        "the image's own profile".to_owned()
                    } else {
                        path.display().to_string()
                    };
                    format!("{} is not in force, {own} is: {first}", instead.display())
                });
                return Ok(Chosen {
                    path,
                    text,
                    rendered,
                    problem,
                });
            }
            Err(failure) => {
                wrong.get_or_insert((path, failure));
            }
        }
    }
    Err(wrong.map_or_else(
        || Failure::failed("there is no profile"),
        |(_, failure)| failure,
    ))
}

/// Raises the clock, before anything makes a certificate.
fn raise_clock(paths: &Paths, image: &ImageFacts) -> Clock {
    let known = Known {
        built: i64::try_from(image.build_time).unwrap_or(0),
        saved: clock::saved(&paths.state("clock")),
        rtc: clock::rtc(Path::new("/sys")),
    };
    let mut judged = clock::judge(clock::now(), known);
    if let Some(to) = judged.raised_to
        && let Err(e) = clock::set(to)
    {
        judged.implausible = Some(format!("the clock could not be set: {e}"));
    }
    judged
}

/// Writes the files that are due at `when`. What is already there is left alone.
pub fn write_files(paths: &Paths, rendered: &Rendered, when: When) -> Result<usize> {
    let mut written = 0;
    for file in rendered.files.iter().filter(|f| f.when == when) {
        let path = paths.at(&file.path);
        let same = fs::symlink_metadata(&path).is_ok_and(|m| {
            use std::os::unix::fs::PermissionsExt as _;
            m.is_file() && m.permissions().mode() & 0o7777 == file.mode
        }) && fs::read(&path).is_ok_and(|found| found == file.content);
        if !same {
            write_whole(&path, &file.content, file.mode, false)
                .doing(|| format!("writing {}", path.display()))?;
            written += 1;
        }
    }
    Ok(written)
}

/// `bootctl profile apply`: the clock, the early files, the host name, the early commands.
pub fn apply(paths: &Paths, real: bool) -> Result<Applied> {
    let image = image_facts(paths)?;
    let clock = real.then(|| raise_clock(paths, &image));
    let chosen = choose(paths);
    let applied = Applied {
        profile: chosen.as_ref().map(|c| c.path.clone()).unwrap_or_default(),
        problem: chosen
            .as_ref()
            .map_or_else(|e| Some(e.to_string()), |c| c.problem.clone()),
        clock,
    };
    // First, so that `serve` and `status` can say it whatever comes next.
    let json = serde_json::to_vec_pretty(&applied).map_err(Failure::failed)?;
    let out = paths.run("applied.json");
    write_whole(&out, &json, 0o644, false).doing(|| format!("writing {}", out.display()))?;
    let chosen = chosen?;
    write_files(paths, &chosen.rendered, When::Early)?;
    set_hostname(paths, &chosen.rendered.hostname, real)?;
    if real && !chosen.rendered.early.is_empty() {
        early_steps(paths, &chosen.rendered)?;
    }
    Ok(applied)
}

fn set_hostname(paths: &Paths, name: &str, real: bool) -> Result<()> {
    let line = format!("{name}\n");
    for (path, sync) in [
        (paths.at("/etc/hostname"), false),
        (paths.state("hostname"), true),
    ] {
        if fs::read(&path).is_ok_and(|found| found == line.as_bytes()) {
            continue;
        }
        let done = write_whole(&path, line.as_bytes(), 0o644, sync);
        // A full `state` must not keep the machine from coming up.
        if let Err(e) = done {
            eprintln!("writing {}: {e}", path.display());
        }
    }
    if real {
        rustix::system::sethostname(name.as_bytes())
            .map_err(std::io::Error::from)
            .doing(|| format!("setting the host name to {name}"))?;
    }
    Ok(())
}

fn early_steps(paths: &Paths, rendered: &Rendered) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime")?;
    let at = |path: &str| paths.at(path);
    for step in &rendered.early {
        let done = runtime.block_on(crate::serve::run::step(step, &at, &|line| {
            eprintln!("{line}")
        }));
        match done {
            Err(e) if step.required => return Err(e),
            Err(e) => eprintln!("{e}"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// What the last `profile apply` left.
pub fn applied(paths: &Paths) -> Option<Applied> {
    read_json(&paths.run("applied.json")).ok()
}

/// Whether the time came from the network in this boot.
pub fn time_synchronized(paths: &Paths) -> bool {
    paths.at("/run/systemd/timesync/synchronized").exists()
}

/// Saves the time for the next start, unless it is a guess: what is saved counts as known.
pub fn save_clock(paths: &Paths) {
    if implausible_clock(paths).is_some() {
        return;
    }
    if let Err(e) = clock::save(&paths.state("clock"), time_synchronized(paths)) {
        eprintln!("bootctl: saving the clock: {e}");
    }
}

/// Why the clock cannot be right, if so.
pub fn implausible_clock(paths: &Paths) -> Option<String> {
    if time_synchronized(paths) {
        return None;
    }
    applied(paths)?.clock?.implausible
}
