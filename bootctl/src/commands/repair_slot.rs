//! `repair-slot` and `give-up`: what is done about a slot whose disk has rotted.

use boot_core::record::{Record, SlotStatus};
use boot_core::{Slot, Target};
use serde_json::json;

use super::{target_slot, then_reboot};
use crate::boot;
use crate::boot::slot_check::{self, Parts};
use crate::cli::{GiveUp, RepairSlot};
use crate::failure::{Code, Failure, Result};
use crate::install::Options;
use crate::install::repair::repair;
use crate::machine::Machine;
use crate::machine::facts::target_name;
use crate::output::Outcome;
use crate::progress::Progress;

/// `bootctl repair-slot`.
pub fn repair_slot(machine: &Machine, arguments: &RepairSlot) -> Result<Outcome> {
    let what = "repair-slot";
    let (_lock, mut control) = boot::installing(machine, what)?;
    let slot = target_slot(machine, arguments.slot)?;
    let from = slot.other();
    let trust = slot_check::trust(machine)?;
    let options = Options {
        trust: &trust,
        slot,
        force: false,
        scratch: machine.paths().state("scratch"),
    };
    let repaired = repair(
        &mut control,
        &mut Parts::open(machine, slot, true)?,
        &mut Parts::open(machine, from, false)?,
        Parts::open(machine, from, false)?,
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

/// `bootctl give-up`.
pub fn give_up(machine: &Machine, arguments: &GiveUp) -> Result<Outcome> {
    let what = "give-up";
    let (_lock, mut control) = boot::installing(machine, what)?;
    let slot = target_slot(machine, arguments.slot)?;
    let record = control.record()?;
    let entry = record.slot(slot);
    if entry.contents().is_none() {
        return Err(Failure::refused(format!("slot {slot} is empty"))
            .next("install something into it: `bootctl install SOURCE`"));
    }
    let trust = slot_check::trust(machine)?;
    let mut slot_parts = Parts::open(machine, slot, false)?;
    let why = match slot_check::whole(&mut slot_parts, slot, &trust, &record) {
        Ok(()) => {
            let next = match machine.booted {
                Target::Recovery => "restart the machine: `bootctl reboot`",
                _ => "`bootctl install SOURCE` replaces it",
            };
            return Err(Failure::refused(format!(
                "slot {slot} is not damaged: it holds version {}, every byte as it was signed",
                entry.version
            ))
            .next(next));
        }
        Err(e) if e.code == Code::Verification => e.what,
        Err(e) => return Err(e),
    };
    let _lock = control.lock()?;
    control.give_up_damaged(slot, &why)?;
    Ok(Outcome::new(
        format!(
            "slot {slot} is given up: {why}; write it with `bootctl install --slot {} SOURCE`",
            target_name(slot.into())
        ),
        json!({"given_up": slot, "why": why}),
    ))
}
