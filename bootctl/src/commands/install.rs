//! `install`: opens what [`crate::install`] works on, under the lock of installations.

use boot_core::record::SlotStatus;
use indicatif::HumanBytes;
use serde_json::json;

use super::{changes::then_reboot, control, target_slot};
use crate::boot::slot_check;
use crate::cli::Install;
use crate::failure::Result;
use crate::install::{self, Options, Parts};
use crate::machine::Machine;
use crate::os::device::BlockFile;
use crate::os::lock::Lock;
use crate::output::Outcome;
use crate::progress::Progress;
use crate::source;

/// `bootctl install`.
pub fn install(machine: &Machine, arguments: &Install) -> Result<Outcome> {
    then_reboot(machine, arguments.now, put(machine, arguments)?)
}

/// All of it but the reboot.
pub fn put(machine: &Machine, arguments: &Install) -> Result<Outcome> {
    let shown = source::shown(&arguments.source);
    let what = format!("install {shown}");
    let _lock = Lock::take(&machine.paths().install_lock(), &what)?;
    machine.writable()?;
    let slot = target_slot(machine, arguments.slot)?;
    let mut control = control(machine, true)?.locking(machine.paths().lock(), &what);
    let trust = slot_check::trust(machine)?;
    let mut target = parts(machine, slot, true)?;
    // Without a slot to copy from, everything is fetched.
    let mut other = parts(machine, slot.other(), false).ok();
    let progress = Progress::new();
    let mut source = source::open(&arguments.source, &progress)?;
    let options = Options {
        trust: &trust,
        slot,
        force: arguments.force,
        scratch: machine.paths().state("scratch"),
    };
    let doing = format!("installing {shown} into slot {slot}");
    let installed = install::install(
        &mut control,
        &mut target,
        other.as_mut(),
        source.as_mut(),
        &options,
        &progress,
    )
    .map_err(|e| e.doing(&doing))?;
    let mut text = if installed.was_there {
        format!(
            "version {} is in slot {slot} already, complete",
            installed.version
        )
    } else {
        format!(
            "version {} is in slot {slot}: {} fetched, {} of {} were here already",
            installed.version,
            HumanBytes(installed.fetched),
            HumanBytes(installed.reused),
            HumanBytes(installed.size),
        )
    };
    if arguments.now {
        let _lock = control.lock()?;
        control.activate(slot)?;
    } else {
        text.push_str("; start it with `bootctl activate --now`");
    }
    let status = if arguments.now {
        SlotStatus::Trial
    } else {
        SlotStatus::Staged
    };
    let json = json!({"installed": installed, "status": status.name()});
    Ok(Outcome::new(text, json))
}

/// Opens the partitions of a slot.
pub(crate) fn parts(
    machine: &Machine,
    slot: boot_core::Slot,
    write: bool,
) -> Result<Parts<BlockFile>> {
    Ok(Parts {
        boot: machine.open(slot.label_boot(), write)?,
        root: machine.open(slot.label_root(), write)?,
    })
}
