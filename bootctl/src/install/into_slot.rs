//! An installation into a slot of this machine, under the lock of installations.

use std::time::Duration;

use super::{Installed, Options, install};
use crate::boot;
use crate::boot::admission::Admission;
use crate::boot::slot_check::SlotDevices;
use crate::failure::Result;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::source::{self, Reach};

use block_file::Access;
use boot_core::{Digest, Slot};

/// What is to be installed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Where the bundle comes from.
    pub source: &'a str,
    /// The slot that it goes into.
    pub slot: Slot,
    /// Release it from quarantine.
    pub force: bool,
    /// Start it next.
    pub activate: bool,
    /// Manifests that are not installed.
    pub unwanted: &'a [Digest],
    /// Where nobody is there to say it again: how long a bundle that has begun to arrive is tried for.
    pub patience: Option<Duration>,
}

/// Installs it, and activates it if that is asked for.
///
/// # Errors
/// As [`install`]; somebody else installs; or a partition cannot be opened.
pub fn into_slot(machine: &Machine, request: Request<'_>) -> Result<Installed> {
    let slot = request.slot;
    let shown = source::shown(request.source);
    let what = format!("install {shown}");
    let (_lock, mut control) = boot::installing(machine, &what)?;
    let admission = Admission::of(machine)?;
    let mut target = SlotDevices::open(machine, slot, Access::Alone)?;
    // Without a slot to copy from, everything is fetched.
    let mut other = SlotDevices::open(machine, slot.other(), Access::Read).ok();
    let progress = Progress::new();
    let reach = Reach::of(machine).for_as_long_as(request.patience);
    let mut source = source::open(request.source, &progress, &reach)?;
    let options = Options {
        admission: &admission,
        slot,
        force: request.force,
        scratch: machine.paths().state("scratch"),
        unwanted: request.unwanted,
    };
    let installed = install(
        &mut control,
        &mut target,
        other.as_mut(),
        source.as_mut(),
        &options,
        &progress,
    )
    .map_err(|e| e.doing(format!("installing {shown} into slot {slot}")))?;
    if request.activate {
        let _lock = control.lock()?;
        control.activate(slot)?;
    }
    Ok(installed)
}
