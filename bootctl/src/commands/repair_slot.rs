//! `repair-slot`: writes a slot whose disk has rotted from the other one.

use block_file::Access;
use boot_core::Slot;
use boot_core::record::{Record, SlotStatus};
use clap::Args;
use serde_json::json;

use super::{SlotName, target_slot, then_reboot};
use crate::boot;
use crate::boot::admission::Admission;
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Failure, Result};
use crate::install::Options;
use crate::install::repair::repair;
use crate::machine::Machine;
use crate::output::Outcome;
use crate::progress::Progress;

/// Arguments of `repair-slot`.
#[derive(Debug, Args)]
pub struct RepairSlot {
    /// Activate it and reboot when it is in place
    #[arg(long)]
    pub now: bool,
    /// Which slot; needed in recovery, where none is booted. Else the one beside the booted one
    #[arg(long, value_enum)]
    pub slot: Option<SlotName>,
}

/// `bootctl repair-slot`.
pub fn repair_slot(machine: &Machine, arguments: &RepairSlot) -> Result<Outcome> {
    let slot = target_slot(machine, arguments.slot)?;
    let (_lock, mut control) = boot::installing(machine, "repair-slot")?;
    let from = slot.other();
    let admission = Admission::of(machine)?;
    let options = Options {
        admission: &admission,
        slot,
        force: false,
        scratch: machine.paths().state("scratch"),
        unwanted: &[],
    };
    let repaired = repair(
        &mut control,
        &mut SlotDevices::open(machine, slot, Access::Alone)?,
        &mut SlotDevices::open(machine, from, Access::Read)?,
        SlotDevices::open(machine, from, Access::Read)?,
        &options,
        &Progress::new(),
    )?;
    let Some(installed) = repaired else {
        return nothing_to_repair(&control.record()?, slot);
    };
    let mut text = format!(
        "slot {slot} holds version {} of slot {from}, every byte verified",
        installed.version
    );
    if arguments.now {
        let _lock = control.lock()?;
        control.activate(slot)?;
    } else {
        text.push_str("; it becomes good when it has run: `bootctl activate --now`");
    }
    let status = if arguments.now {
        SlotStatus::Trial
    } else {
        SlotStatus::Staged
    };
    let json = json!({"repaired": installed, "from": from, "status": status.name()});
    then_reboot(machine, arguments.now, Outcome::new(text, json))
}

fn nothing_to_repair(record: &Record, slot: Slot) -> Result<Outcome> {
    let entry = record.slot(slot);
    let (version, status) = (entry.version, entry.status());
    if entry.digest == record.slot(slot.other()).digest {
        let text = format!("slot {slot} holds version {version}, whole, as the other slot does");
        return Ok(Outcome::new(
            text,
            json!({"repaired": null, "status": status.name()}),
        ));
    }
    Err(Failure::refused(format!(
        "slot {slot} is not damaged: it holds version {version}, every byte as it was signed"
    ))
    .next("to have something else in it, `bootctl install SOURCE`"))
}
