//! Facts about the running machine: what the loader and the initrd agent handed over, what the
//! image says it is, which partitions there are and which slot lies under the mounted root.
//!
//! Everything is found below a prefix (`/` in the field), so that a directory can stand in for a
//! machine. Facts that contradict each other are kept as such: [`Machine::writable`] refuses then,
//! because a slot that is taken for the other one would be overwritten while it runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use boot_core::handover::HandOver;
use boot_core::record;
use boot_core::select::Why;
use boot_core::slot::{Slot, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::device::BlockFile;
use crate::failure::{Code, Doing, Failure, Result};

/// What the initrd agent found out, in `/run/sternpost/boot.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootFacts {
    /// Version of this file.
    pub version: u32,
    /// `a`, `b` or `recovery`.
    pub slot: String,
    /// The whole disk; `null` in a recovery system that did not find it.
    #[serde(default)]
    pub disk: Option<String>,
    /// Device of each partition, by label.
    pub partitions: BTreeMap<String, PathBuf>,
    /// Where the table has each partition, by label.
    #[serde(default)]
    pub table: BTreeMap<String, TableEntry>,
    /// What is mounted as the root.
    #[serde(default)]
    pub root_device: Option<PathBuf>,
    /// Digest of the booted slot's manifest.
    #[serde(default)]
    pub manifest_digest: Option<String>,
    /// True on the first boot of this disk.
    #[serde(default)]
    pub first_boot: bool,
    /// The hardware watchdog that was opened.
    #[serde(default)]
    pub watchdog: Option<String>,
    /// Its time as the initrd set it.
    #[serde(default)]
    pub watchdog_seconds: Option<i32>,
    /// How the check of `state` ended.
    #[serde(default)]
    pub state: serde_json::Value,
    /// What went wrong without ending the start.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Monotonic microseconds of the steps.
    #[serde(default)]
    pub timeline: BTreeMap<String, serde_json::Value>,
}

/// An entry of the disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its number, from 1.
    pub number: u32,
    /// The partition's GUID, lower case.
    pub guid: String,
    /// Its first byte on the disk.
    pub start: u64,
    /// How many bytes it has.
    pub size: u64,
}

impl BootFacts {
    /// What keeps `state` from being used, if anything does.
    pub fn state_problem(&self) -> Option<StateProblem> {
        let degraded = self.state_says("status") == Some("degraded");
        degraded.then(|| match self.state_says("problem") {
            Some("missing") => StateProblem::Missing,
            Some("damaged") => StateProblem::Damaged,
            _ => StateProblem::Unusable,
        })
    }

    fn state_says(&self, name: &str) -> Option<&str> {
        self.state.get(name).and_then(serde_json::Value::as_str)
    }

    /// Why what this machine is to keep is not where it belongs, if so: `state` is in memory, or
    /// /var or another folder that persists is not bound to it. Such a machine looks empty.
    pub fn state_missing(&self) -> Option<String> {
        if self.state_problem().is_some() {
            let why = self.state_says("reason").unwrap_or("no reason was given");
            return Some(format!("the state partition is not in use: {why}"));
        }
        self.notes
            .iter()
            .find(|note| note.starts_with("binding "))
            .map(|note| format!("not everything that is to persist does: {note}"))
    }
}

/// What keeps `state` from being used; /state is in memory then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateProblem {
    /// There is no such partition.
    Missing,
    /// Damaged beyond what can be repaired without loss.
    Damaged,
    /// Not read, not written, or not known; it may be whole.
    Unusable,
}

/// The machine that this runs on.
#[derive(Debug, Clone)]
pub struct Machine {
    prefix: PathBuf,
    /// The agent's facts.
    pub boot: BootFacts,
    /// The loader's, where there was one.
    pub handover: Option<HandOver>,
    /// The image's.
    pub image: Option<profile::ImageFacts>,
    /// What is booted.
    pub booted: Target,
    contradiction: Option<String>,
}

/// Paths that everything here uses, below a prefix.
#[derive(Debug, Clone)]
pub struct Paths {
    prefix: PathBuf,
}

impl Paths {
    /// Below `prefix`.
    pub fn new(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Whether they are a machine's own. What stands in for a machine runs no commands: they would
    /// change the one that it stands on.
    pub fn are_real(&self) -> bool {
        self.prefix == Path::new("/")
    }

    /// `path`, which is absolute, below the prefix.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.prefix.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file of ours that lasts until the next boot.
    pub fn run(&self, name: &str) -> PathBuf {
        self.at("/run/sternpost").join(name)
    }

    /// A file of ours that outlives upgrades.
    pub fn state(&self, name: &str) -> PathBuf {
        self.at("/state/sternpost").join(name)
    }

    /// A file of the image's.
    pub fn image(&self, name: &str) -> PathBuf {
        self.at("/usr/lib/sternpost").join(name)
    }

    /// The lock of the boot state.
    pub fn lock(&self) -> PathBuf {
        self.run("bootctl.lock")
    }

    /// The lock of installations.
    pub fn install_lock(&self) -> PathBuf {
        self.run("install.lock")
    }
}

/// Reads a JSON file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).doing(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::failed(e).doing(format!("reading {}", path.display())))
}

/// Puts `bytes` at `path` so that a reader sees the old or the new ones and nothing between.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    // The umask must not decide.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| if sync { file.sync_all() } else { Ok(()) })
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
    if sync {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Longest line of [`write_line`]. Far less than a sector, which a disk writes whole or not at all.
const LINE: usize = 48;

/// Puts a short line at `path`, over the one that is there: that works on a filesystem without a byte or an inode left,
/// which `state` may be whenever Kubernetes likes. Only the first time room is needed. Readers trim.
pub fn write_line(path: &Path, line: &str) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let padded = format!("{line:LINE$}\n");
    let there = fs::OpenOptions::new().write(true).open(path);
    match there {
        // An empty file has no block to write over.
        Ok(file) if padded.len() == LINE + 1 && file.metadata()?.len() > 0 => {
            file.write_all_at(padded.as_bytes(), 0)?;
            file.sync_all()
        }
        _ => write_whole(path, padded.as_bytes(), 0o644, true),
    }
}

fn target_named(name: &str) -> Option<Target> {
    match name {
        "a" => Some(Target::A),
        "b" => Some(Target::B),
        "recovery" => Some(Target::Recovery),
        _ => None,
    }
}

/// `a`, `b` or `recovery`, as it stands in every JSON of ours.
pub fn target_name(target: Target) -> &'static str {
    match target {
        Target::A => "a",
        Target::B => "b",
        Target::Recovery => "recovery",
    }
}

impl Machine {
    /// Reads the facts below `prefix`.
    ///
    /// # Errors
    /// [`Code::NotSternpost`] where there are none.
    pub fn read(prefix: &Path) -> Result<Self> {
        let paths = Paths::new(prefix);
        let facts = paths.run("boot.json");
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
        let boot: BootFacts = read_json(&facts)?;
        let booted = target_named(&boot.slot).ok_or_else(|| {
            Failure::failed(format!(
                "{}: unknown slot \"{}\"",
                facts.display(),
                boot.slot
            ))
        })?;
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

    /// Why nothing may be brought up on what /state holds, if so: it is in memory, or a newer version's.
    pub fn state_unfit(&self) -> Option<String> {
        self.boot.state_missing().or_else(|| {
            // Recovery brings nothing up, whosever it is.
            self.slot()?;
            crate::owner::of_another(&self.paths(), self.image.as_ref()?)
        })
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

    /// The file of the partition that is labelled `label`.
    pub fn partition(&self, label: &str) -> Result<PathBuf> {
        self.boot
            .partitions
            .get(label)
            .map(|p| {
                if self.prefix == Path::new("/") {
                    p.clone()
                } else {
                    self.paths().at(p)
                }
            })
            .ok_or_else(|| {
                Failure::failed(match &self.boot.disk {
                    Some(disk) => format!("the disk {disk} has no partition {label}"),
                    None => format!("the disk was not found, so there is no partition {label}"),
                })
                .next("look at the disk with lsblk; if it is damaged, start recovery and install again")
            })
    }

    /// Opens the partition that is labelled `label`.
    pub fn open(&self, label: &str, write: bool) -> Result<BlockFile> {
        let path = self.partition(label)?;
        BlockFile::open(&path, write).map_err(|e| {
            Failure::failed(&e)
                .doing(format!("opening {label} ({})", path.display()))
                .next(if e.kind() == std::io::ErrorKind::PermissionDenied {
                    "run it as root"
                } else {
                    "look whether the disk is still there (lsblk, journalctl -k)"
                })
        })
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
            if let Some(digest) = &self.boot.manifest_digest
                && *digest != handover.manifest.to_string()
            {
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

    /// The slot that one of these kernel device names is the root partition of.
    fn slot_of(&self, names: &[String]) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|slot| {
            self.boot
                .partitions
                .get(slot.label_root())
                .and_then(|path| fs::canonicalize(path).ok().or_else(|| Some(path.clone())))
                .and_then(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()))
                .is_some_and(|name| names.contains(&name))
        })
    }
}

/// The kernel names of the devices at the bottom of device `number` (`major:minor`), found
/// through device-mapper's `slaves` below `sysfs`.
fn partitions_under(sysfs: &Path, number: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(start) = fs::canonicalize(sysfs.join(number)) else {
        return found;
    };
    let mut open = vec![start];
    while let Some(device) = open.pop() {
        let below: Vec<PathBuf> = fs::read_dir(device.join("slaves"))
            .map(|entries| {
                entries
                    .filter_map(|e| fs::canonicalize(e.ok()?.path()).ok())
                    .collect()
            })
            .unwrap_or_default();
        if below.is_empty() {
            if let Some(name) = device.file_name() {
                found.push(name.to_string_lossy().into_owned());
            }
        } else if found.len() < 16 {
            open.extend(below);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn finds_the_partition_below_device_mapper() {
        let dir = tempfile::tempdir().unwrap();
        let sys = dir.path();
        let devices = sys.join("devices");
        fs::create_dir_all(devices.join("dm-0/slaves")).unwrap();
        fs::create_dir_all(devices.join("vda/vda7")).unwrap();
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        symlink(devices.join("vda/vda7"), devices.join("dm-0/slaves/vda7")).unwrap();
        symlink(devices.join("dm-0"), sys.join("dev/block/254:0")).unwrap();
        assert_eq!(partitions_under(&sys.join("dev/block"), "254:0"), ["vda7"]);
        assert!(partitions_under(&sys.join("dev/block"), "1:1").is_empty());
    }

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
        let facts = serde_json::json!({
            "version": 1,
            "slot": Target::Recovery,
            "kind": "recovery",
            "disk": null,
            "partitions": {},
            "root_device": "/dev/loop0",
            "manifest_digest": "0".repeat(64),
            "first_boot": true,
            "grown": { "gpt": false, "state": false },
            "watchdog": null,
            "watchdog_seconds": null,
            "state": { "status": "degraded", "reason": "looking for the partition state" },
            "notes": ["looking for the disk: none has the nonce"],
            "timeline": { "agent_start_us": 1 },
        });
        fs::write(run.join("boot.json"), facts.to_string()).unwrap();
        let machine = Machine::read(dir.path()).unwrap();
        assert_eq!(machine.booted, Target::Recovery);
        let e = machine.partition("boot-state").unwrap_err();
        assert!(e.what.contains("the disk was not found"), "{e}");
        let missing = machine.boot.state_missing().unwrap();
        assert!(missing.contains("looking for the partition state"));
    }

    #[test]
    fn a_folder_that_is_not_bound_is_missing_state() {
        let facts = |notes: &[&str]| -> BootFacts {
            serde_json::from_value(serde_json::json!({
                "version": 1, "slot": "a", "partitions": {}, "notes": notes,
                "state": { "status": "ok", "reason": null },
            }))
            .unwrap()
        };
        assert_eq!(facts(&[]).state_missing(), None);
        let other = "growing the table of vda: too small";
        assert_eq!(facts(&[other]).state_missing(), None);
        let missing = facts(&[other, "binding /var: No such file or directory"]).state_missing();
        assert!(missing.unwrap().contains("binding /var"));
    }

    #[test]
    fn contradicting_facts_forbid_writing() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/sternpost");
        fs::create_dir_all(&run).unwrap();
        fs::write(
            run.join("boot.json"),
            r#"{"version":1,"slot":"a","partitions":{}}"#,
        )
        .unwrap();
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
                times: boot_core::handover::Times::default(),
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
