//! `activate`, `mark-good`, `rollback`: one commit each.

use boot_core::verify::would_start;
use serde_json::json;

use super::{target_slot, then_reboot};
use crate::boot::{Locked, slot_check};
use crate::cli::{Activate, Rollback};
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// `bootctl activate`.
pub fn activate(machine: &Machine, arguments: &Activate) -> Result<Outcome> {
    let mut control = Locked::wait_for(machine, "activate")?;
    let slot = target_slot(machine, arguments.slot)?;
    let record = control.record()?;
    if record.slot(slot).contents().is_some() {
        // Not the tries of a slot that the loader would reject anyway.
        let mut device = machine.open(slot.label_boot(), false)?;
        would_start(
            &mut device,
            slot.into(),
            &slot_check::trust(machine)?,
            &record,
        )
        .map_err(|rejected| {
            Failure::verification(rejected)
                .doing(format!("verifying slot {slot}"))
                .next("install it again")
        })?;
    }
    let record = control.activate(slot)?;
    let entry = record.slot(slot);
    let text = format!(
        "slot {slot} (version {}) starts next, with {} tries{}",
        entry.version,
        entry.tries,
        if arguments.now {
            ""
        } else {
            "; reboot with `bootctl reboot`"
        }
    );
    then_reboot(
        machine,
        arguments.now,
        Outcome::new(
            text,
            json!({"activated": slot, "version": entry.version, "tries": entry.tries}),
        ),
    )
}

/// `bootctl mark-good`.
pub fn mark_good(machine: &Machine) -> Result<Outcome> {
    let mut control = Locked::wait_for(machine, "mark-good")?;
    let slot = machine
        .slot()
        .ok_or_else(|| Failure::refused("the recovery system is running: it is not marked good"))?;
    let before = control.record()?;
    let digest = machine.boot.manifest_digest;
    let was_good = before.slot(slot).is_good();
    let record = control.mark_good(slot, &digest, "by an operator")?;
    let entry = record.slot(slot);
    let text = if was_good {
        format!("slot {slot} (version {}) was good already", entry.version)
    } else {
        format!("slot {slot} (version {}) is good", entry.version)
    };
    Ok(Outcome::new(
        text,
        json!({"marked_good": slot, "version": entry.version, "was_good": was_good, "floor": record.floor}),
    ))
}

/// `bootctl rollback`.
pub fn rollback(machine: &Machine, arguments: &Rollback) -> Result<Outcome> {
    let mut control = Locked::wait_for(machine, "rollback")?;
    let booted = machine.slot().ok_or_else(|| {
        Failure::refused("the recovery system is running: there is no slot to leave")
            .next("`bootctl activate --slot a` or `--slot b` chooses one")
    })?;
    let record = control.record()?;
    if record.slot(booted.other()).is_good() {
        slot_check::startable(machine, &record, booted.other())
            .map_err(|e| e.next("`bootctl install` something into it first"))?;
    }
    let record = control.rollback(booted, &arguments.reason)?;
    let other = record.slot(booted.other());
    let text = format!(
        "slot {} (version {}) starts next{}",
        booted.other(),
        other.version,
        if arguments.now {
            ""
        } else {
            "; reboot with `bootctl reboot`"
        }
    );
    then_reboot(
        machine,
        arguments.now,
        Outcome::new(
            text,
            json!({"next": booted.other(), "version": other.version}),
        ),
    )
}
