//! An installation into a slot of this machine, under the lock of installations.

use super::{Installed, Options, install};
use crate::boot;
use crate::boot::slot_check::{self, SlotDevices};
use crate::failure::Result;
use crate::machine::Machine;
use crate::progress::Progress;
use crate::source;

use boot_core::Slot;

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
    let trust = slot_check::trust(machine)?;
    let mut target = SlotDevices::open(machine, slot, true)?;
    // Without a slot to copy from, everything is fetched.
    let mut other = SlotDevices::open(machine, slot.other(), false).ok();
    let progress = Progress::new();
    let mut source = source::open_at(request.source, &progress, machine.pace)?;
    let options = Options {
        trust: &trust,
        slot,
        force: request.force,
        scratch: machine.paths().state("scratch"),
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
