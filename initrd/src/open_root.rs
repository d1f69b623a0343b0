//! The root filesystem of what was started: a slot's under dm-verity, recovery's out of its initramfs.

use std::fs;
use std::os::fd::AsFd;

use block_file::Access;
use boot_core::{RootHash, Window};

use crate::block::{self, partition_name};
use crate::boot_disk::Candidate;
use crate::dm_verity::{self, Verity};
use crate::failure::{Context, Failure};
use crate::start::Start;
use crate::{slot_manifest, sys};

/// Checks the slot that was started and opens its root, and no other's, under dm-verity.
pub(crate) fn verified(
    start: &Start,
    candidate: &Candidate,
    hash: &RootHash,
) -> Result<String, Failure> {
    let target = start.hand_over.slot;
    let slot = target.slot().context("looking for the root of", target)?;
    let place = |label: &str| format!("{label} (/dev/{})", candidate.name);
    let find = |label| {
        let found = candidate.table.find(label);
        found.context("looking for the partition", place(label))
    };
    let boot = find(slot.label_boot())?;
    let part = find(slot.label_root())?;
    let mut device = block::open(&candidate.name, Access::Read)?;
    let root = slot_manifest::root(
        &mut Window::partition(&mut device, boot),
        target,
        &start.hand_over.manifest,
        start.hand_over.floors.unwrap_or_default().of(target),
        hash,
        part.size,
    )
    .context("checking", place(slot.label_boot()))?;
    let (_, number) = partition_name(&candidate.name, part.number)
        .context("looking for the kernel's name of", place(slot.label_root()))?;
    dm_verity::open(
        "root",
        &Verity {
            device: number,
            data_size: root.data_size,
            root_hash: root.hash,
            salt: root.salt,
        },
    )
}

/// Puts recovery's root file behind a loop device. The digest over the whole UKI covers it.
pub(crate) fn of_recovery() -> Result<String, Failure> {
    let file =
        fs::File::open("/sternpost/root.erofs").context("opening", "/sternpost/root.erofs")?;
    let control = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .context("opening", "/dev/loop-control")?;
    let number = sys::loop_free(control.as_fd()).context("looking for", "a free loop device")?;
    let path = format!("/dev/loop{number}");
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context("opening", &path)?;
    sys::loop_attach(device.as_fd(), file.as_fd())
        .context("attaching recovery's root filesystem to", &path)?;
    Ok(path)
}
