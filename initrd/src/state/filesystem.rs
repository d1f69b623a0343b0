//! The ext4 of `state` on a block device: its superblock, its check, its mount.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use block_file::Access;
use boot_core::Device;
use boot_core::boot_report::StateProblem;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Unfit;
use super::check::Steps;
use super::e2fsck::{self, Checked, How};
use super::ext4::{self, NotExt4, Superblock};
use crate::block;
use crate::failure::{Context, Failure};
use crate::watchdog::{self, Watchdog};
use crate::{boot_disk, console};

pub(super) fn superblock(
    name: &str,
    parse: fn(&[u8]) -> Result<Superblock, NotExt4>,
) -> Result<(Superblock, u64), Unfit> {
    let mut device = block::open(name, Access::Read)?;
    let start = boot_disk::read_start(&mut device, ext4::NEEDED)
        .context("reading the superblock of", device.path().display())?;
    let superblock = parse(&start).map_err(|error| Unfit {
        problem: StateProblem::Damaged,
        failure: Failure::new(
            "reading",
            format_args!("state ({})", device.path().display()),
            error,
        ),
    })?;
    Ok((superblock, device.size()))
}

/// The partition, and where it is to be mounted.
pub(super) struct Filesystem<'a> {
    pub(super) name: &'a str,
    pub(super) device: String,
    pub(super) target: &'a Path,
    pub(super) root: &'a Path,
    pub(super) watchdog: Option<&'a Watchdog>,
}

impl Steps for Filesystem<'_> {
    fn superblock(&mut self) -> Result<Superblock, Unfit> {
        superblock(self.name, ext4::parse).map(|(superblock, _)| superblock)
    }

    fn mounted_superblock(&mut self) -> Option<Superblock> {
        let (superblock, _) = superblock(self.name, ext4::parse_mounted).ok()?;
        Some(superblock)
    }

    fn copies(&mut self) -> Result<Vec<Result<u64, Failure>>, Failure> {
        let mut device = block::open(self.name, Access::Read)?;
        let mut found = Vec::new();
        for block in ext4::copies(device.size()) {
            let mut bytes = [0; ext4::BLOCK as usize];
            match device.read_at(block * ext4::BLOCK, &mut bytes) {
                Ok(()) if ext4::parse_copy(&bytes).is_ok() => found.push(Ok(block)),
                Ok(()) => {}
                Err(error) => found.push(Err(Failure::new(
                    "reading",
                    format_args!("block {block} of {}", self.device),
                    error,
                ))),
            }
        }
        Ok(found)
    }

    fn check(&mut self, how: How, why: &dyn Display) -> Result<Checked, Failure> {
        console::log(format_args!("checking {}: {why}", self.device));
        e2fsck::check(&self.device, how, self.root, self.watchdog)
    }

    fn mount(&mut self) -> Result<(), Failure> {
        // A replay, and what was deleted while it was open, can take long.
        watchdog::with_pings(self.watchdog, e2fsck::LIMIT, || {
            mount(
                self.device.as_str(),
                self.target,
                "ext4",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
                c"errors=remount-ro",
            )
        })
        .context("mounting", format_args!("state ({})", self.device))?;
        let kept = watchdog::with_pings(self.watchdog, e2fsck::LIMIT, || keeps(self.target));
        if kept.is_err() {
            // What is mounted over it serves as well.
            let _ = unmount(self.target, UnmountFlags::DETACH);
        }
        kept.context("writing to", format_args!("state ({})", self.device))
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        unmount(self.target, UnmountFlags::empty()).context("unmounting", self.target.display())
    }
}

/// Whether the filesystem mounted at `target` keeps what is written. The kernel mounts one whose journal cannot be
/// written, and stops at the first write: then nothing that it holds can be read any more either, and the machine could
/// not be reached. The write is one that needs no room.
fn keeps(target: &Path) -> io::Result<()> {
    let folder = File::open(target)?;
    folder.set_modified(SystemTime::now())?;
    folder.sync_all()
}
