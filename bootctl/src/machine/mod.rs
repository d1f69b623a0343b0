//! Facts about the running machine: what the loader (`/run/sternpost/handover.json`) and the initrd agent
//! (`/run/sternpost/boot.json`) handed over, what the image says it is (`/usr/lib/sternpost/image.json`), which partitions
//! there are and which slot lies under the mounted root.
//!
//! Everything is found below a prefix (`/` in the field), so that a directory can stand in for a
//! machine. Facts that contradict each other are kept as such: [`Machine::writable`] refuses then,
//! because a slot that is taken for the other one would be overwritten while it runs.

pub mod clock;
pub mod disk;
pub mod facts;
pub mod leases;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boot_core::boot_report::{self, BootReport};
use boot_core::hand_over::HandOver;
use boot_core::record;
use boot_core::select::Why;
use boot_core::slot::{Slot, Target};

use self::disk::partitions_under;
use crate::failure::{Code, Failure, Result};
use crate::os::clock::Pace;
use crate::os::files::read_json;
use crate::os::paths::Paths;

/// The machine that this runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    prefix: PathBuf,
    /// The agent's facts.
    pub boot: BootReport,
    /// The loader's, where there was one.
    pub handover: Option<HandOver>,
    /// The image's.
    pub image: Option<profile::ImageFacts>,
    pub booted: Target,
    /// How fast it is.
    pub pace: Pace,
    contradiction: Option<String>,
}

impl Machine {
    /// Reads the facts below `prefix`.
    ///
    /// # Errors
    /// [`Code::NotSternpost`] where there are none.
    pub fn read(prefix: &Path) -> Result<Self> {
        let paths = Paths::new(prefix);
        let facts = paths.run(boot_report::FILE);
        if !facts.exists() {
            return Err(Failure::new(
                Code::NotSternpost,
                format!(
                    "{} does not exist: Sternpost did not start this machine",
                    facts.display()
                ),
            )
            .next("run bootctl on an appliance; `imager inspect` reads disk images and bundles"));
        }
        let boot: BootReport = read_json(&facts)?;
        let booted = boot.slot;
        let handover_path = paths.run("handover.json");
        let (handover, unreadable) = match fs::read(&handover_path) {
            Ok(bytes) => match HandOver::from_json(&bytes) {
                Ok(handover) => (Some(handover), None),
                Err(e) => (None, Some(e.to_string())),
            },
            Err(e) => (
                None,
                Some(format!("reading {}: {e}", handover_path.display())),
            ),
        };
        let image = read_json(&paths.image("image.json")).ok();
        let mut machine = Self {
            prefix: prefix.to_owned(),
            boot,
            handover,
            image,
            booted,
            pace: Pace::default(),
            contradiction: None,
        };
        machine.contradiction = unreadable.or_else(|| machine.find_contradiction());
        Ok(machine)
    }

    /// Paths on this machine.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.prefix)
    }

    /// Whether this is a machine and not a directory that stands in for one.
    pub fn is_real(&self) -> bool {
        self.prefix == Path::new("/")
    }

    /// Whether somebody asked for what is booted: it was to be started once.
    pub fn was_asked_for(&self) -> bool {
        let handover = self.handover.as_ref();
        handover.is_some_and(|handover| handover.why == Why::OneShot)
    }

    /// The booted slot, if it is one that has an other.
    pub fn slot(&self) -> Option<Slot> {
        self.booted.slot()
    }

    /// Fails if what is known contradicts itself: then nothing may be written.
    pub fn writable(&self) -> Result<()> {
        match &self.contradiction {
            None => Ok(()),
            Some(what) => Err(Failure::refused(what)
                .doing("making sure which slot is booted")
                .next("restart the machine; if it stays so, keep /run/sternpost and report it")),
        }
    }

    /// What the facts disagree about, for `status`.
    pub fn contradiction(&self) -> Option<&str> {
        self.contradiction.as_deref()
    }

    fn find_contradiction(&self) -> Option<String> {
        if let Some(handover) = &self.handover {
            if handover.slot != self.booted {
                return Some(format!(
                    "the loader handed over {}, the initrd started {}",
                    handover.slot, self.booted
                ));
            }
            let digest = self.boot.manifest_digest;
            if digest != handover.manifest {
                return Some(format!(
                    "the loader verified manifest {}, the initrd found {digest}",
                    handover.manifest
                ));
            }
            let [oldest, newest] = handover.record_versions;
            if !(oldest..=newest).contains(&record::FORMAT) {
                return Some(format!(
                    "the loader reads boot-state records of version {oldest} to {newest}, this bootctl writes {}",
                    record::FORMAT
                ));
            }
        }
        let slot = self.slot()?;
        if self.prefix != Path::new("/") {
            return None;
        }
        let device = fs::metadata("/").ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let under = partitions_under(Path::new("/sys/dev/block"), &format!("{major}:{minor}"));
        match self.slot_of(&under) {
            Some(found) if found == slot => None,
            Some(found) => Some(format!(
                "the mounted root lies on {}, the loader and the initrd say {}",
                found.label_root(),
                slot.label_root()
            )),
            None => Some(format!(
                "the mounted root ({}) lies on neither root-a nor root-b",
                if under.is_empty() {
                    format!("device {major}:{minor}")
                } else {
                    under.join(", ")
                }
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use boot_core::boot_report::{StateProblem, StateReport, StateStatus};

    use super::*;

    #[test]
    fn a_machine_without_facts_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Machine::read(dir.path()).unwrap_err().code,
            Code::NotSternpost
        );
    }

    /// What the initrd agent of a recovery system writes that did not find the disk.
    #[test]
    fn recovery_without_a_disk_is_still_a_machine() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/sternpost");
        fs::create_dir_all(&run).unwrap();
        let mut report = BootReport::new(Target::Recovery, boot_core::Digest::ZERO);
        report.state = StateReport {
            status: StateStatus::Degraded,
            problem: Some(StateProblem::Missing),
            reason: Some("looking for the partition state".into()),
        };
        fs::write(run.join(boot_report::FILE), report.to_json()).unwrap();
        let machine = Machine::read(dir.path()).unwrap();
        assert_eq!(machine.booted, Target::Recovery);
        let e = machine.partition("boot-state").unwrap_err();
        assert!(e.what.contains("the disk was not found"), "{e}");
        let missing = machine.boot.state_missing().unwrap();
        assert!(missing.contains("looking for the partition state"));
    }

    #[test]
    fn contradicting_facts_forbid_writing() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/sternpost");
        fs::create_dir_all(&run).unwrap();
        let report = BootReport::new(Target::A, boot_core::Digest::ZERO);
        fs::write(run.join(boot_report::FILE), report.to_json()).unwrap();
        let hand_over = |slot| {
            let handover = HandOver {
                version: 1,
                slot,
                why: boot_core::select::Why::Priority,
                nonce: boot_core::Nonce::ZERO,
                recorded: true,
                disk: String::new(),
                manifest: boot_core::Digest::ZERO,
                record_versions: [1, 1],
                loader: "0.1.0".into(),
                secure_boot: false,
                watchdog_seconds: 0,
                timer: None,
                rejected: vec![],
                left_out: 0,
                times: boot_core::hand_over::Times::default(),
                trust: None,
                floors: None,
                firmware_floors: None,
            };
            fs::write(run.join("handover.json"), handover.to_json()).unwrap();
        };
        hand_over(Target::B);
        let machine = Machine::read(dir.path()).unwrap();
        assert_eq!(machine.writable().unwrap_err().code, Code::Refused);
        hand_over(Target::A);
        Machine::read(dir.path()).unwrap().writable().unwrap();
        fs::write(run.join("handover.json"), "{}").unwrap();
        let machine = Machine::read(dir.path()).unwrap();
        assert_eq!(machine.writable().unwrap_err().code, Code::Refused);
    }
}
