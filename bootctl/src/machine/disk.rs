//! The partitions of this machine's disk, and which of them lies under the mounted root.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use block_file::{Access, BlockFile};
use boot_core::slot::Slot;
use schemars::JsonSchema;
use serde::Serialize;

use super::Machine;
use crate::failure::{Failure, Result};

impl Machine {
    /// The file of the partition that is labelled `label`.
    pub fn partition(&self, label: &str) -> Result<PathBuf> {
        self.boot
            .partitions
            .get(label)
            .map(|p| {
                if self.prefix == Path::new("/") {
                    p.into()
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
    pub fn open(&self, label: &str, access: Access) -> Result<BlockFile> {
        let path = self.partition(label)?;
        BlockFile::open(&path, access).map_err(|e| {
            Failure::failed(&e)
                .doing(format!("opening {label} ({})", path.display()))
                .next(match e.kind() {
                    ErrorKind::PermissionDenied => "run it as root",
                    ErrorKind::ResourceBusy => {
                        "it is in use, and nothing was written: see by what (lsblk, findmnt), and let go of it"
                    }
                    _ => "look whether the disk is still there (lsblk, journalctl -k)",
                })
        })
    }

    /// The slot that one of these kernel device names is the root partition of.
    pub(super) fn slot_of(&self, names: &[String]) -> Option<Slot> {
        [Slot::A, Slot::B].into_iter().find(|slot| {
            self.boot
                .partitions
                .get(slot.label_root())
                .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.into()))
                .and_then(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()))
                .is_some_and(|name| names.contains(&name))
        })
    }
}

/// The kernel names of the devices at the bottom of device `number` (`major:minor`), found
/// through device-mapper's `slaves` below `sysfs`.
pub(super) fn partitions_under(sysfs: &Path, number: &str) -> Vec<String> {
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

/// What the kernel says of the disk.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiskFacts {
    /// `write back`: it has a cache, which is flushed; `write through`: it says that it has none.
    pub write_cache: Option<String>,
    /// Nothing can be written to it.
    pub read_only: bool,
}

impl DiskFacts {
    /// Those of the disk that the machine was started from, if it was found.
    pub fn of(machine: &Machine) -> Option<Self> {
        let disk = machine.boot.disk.as_deref()?;
        let sysfs = machine.paths().at("/sys");
        Some(Self::read(&sysfs, disk.trim_start_matches("/dev/")))
    }

    fn read(sysfs: &Path, disk: &str) -> Self {
        let text = |name: &str| {
            let path = sysfs.join("class/block").join(disk).join(name);
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        };
        Self {
            write_cache: text("queue/write_cache").ok(),
            read_only: text("ro").is_ok_and(|text| text == "1"),
        }
    }
}

/// How many errors the kernel has counted in `state`, which it does in the superblock; 0 if it is not mounted.
///
/// After an error the kernel lets nothing be written (`errors=remount-ro`). From Linux 6.12 on, mount flags do not show
/// that.
pub fn errors_of_state(machine: &Machine) -> u64 {
    let count = machine.partition("state").ok().and_then(|path| {
        let ext4 = machine.paths().at("/sys/fs/ext4").join(path.file_name()?);
        std::fs::read_to_string(ext4.join("errors_count")).ok()
    });
    count.map_or(0, |count| count.trim().parse().unwrap_or(0))
}

/// Whether the disk lets nothing be written.
pub fn disk_is_read_only(machine: &Machine) -> bool {
    DiskFacts::of(machine).is_some_and(|disk| disk.read_only)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

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
}
