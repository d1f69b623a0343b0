//! Which profile is in force, and what it turns into.
//!
//! A profile on `state` that is not valid does not leave the machine without network and users: the image's own is used,
//! `status` and `health` say so, and a slot on trial is given up for it. One that is gone is one that was never there: the
//! image's is used, and nothing is said. Recovery takes from a profile what makes a machine reachable and what it is to
//! install by itself, and nothing else.
//!
//! A profile is looked for in the image and on `state`, nowhere else: no stick and no firmware is searched for one.

use std::fs;
use std::path::{Path, PathBuf};

use boot_core::Target;
use boot_core::boot_report::{self, BootReport};
use profile::{ImageFacts, MachineFacts, Rendered};

use crate::failure::{Code, Failure, Result};
use crate::machine::facts::{boot_id, image_facts};
use crate::os::files::{read_json, write_durable};
use crate::os::paths::Paths;

/// The profile that is in force.
pub struct ChosenProfile {
    /// Where it lies.
    pub path: PathBuf,
    pub text: String,
    /// What it turns into.
    pub rendered: Rendered,
    /// Why the one on `state` is not it.
    pub problem: Option<String>,
}

fn invalid(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Profile, what)
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
    // One that cannot be looked at is read all the same, so that the reason is said.
    own.filter(|path| path.try_exists().unwrap_or(true))
        .chain([paths.image("profile.yaml")])
        .collect()
}

/// The profile that a good slot last ran with, for recovery.
const GOOD: &str = "good-profile.yaml";

/// Keeps `chosen`, with which the machine is healthy, for recovery.
pub fn keep_for_recovery(paths: &Paths, chosen: &ChosenProfile) {
    let path = paths.state(GOOD);
    if fs::read(&path).is_ok_and(|kept| kept == chosen.text.as_bytes()) {
        return;
    }
    // It may hold password hashes.
    if let Err(e) = write_durable(&path, chosen.text.as_bytes(), 0o600) {
        eprintln!("bootctl: keeping the profile for recovery: {e}");
    }
}

/// Whether it is the recovery system that runs.
fn is_recovery(paths: &Paths) -> bool {
    read_json::<BootReport>(&paths.run(boot_report::FILE))
        .is_ok_and(|report| report.slot == Target::Recovery)
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
pub fn choose(paths: &Paths) -> Result<ChosenProfile> {
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
                return Ok(ChosenProfile {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::facts::stand_in;

    #[test]
    fn a_profile_that_cannot_be_looked_at_is_a_problem_and_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        stand_in::image(&paths);
        assert_eq!(choose(&paths).unwrap().problem, None);
        // ENOTDIR stands for whatever a disk may answer.
        stand_in::put(&paths.at("/state/sternpost"), "");
        let problem = choose(&paths).unwrap().problem.unwrap();
        assert!(
            problem.contains("profile.yaml is not in force"),
            "{problem}"
        );
    }
}
