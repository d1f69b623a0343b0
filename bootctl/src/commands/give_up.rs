//! `give-up`: ends a slot whose disk has rotted.

use block_file::Access;
use boot_core::Target;
use clap::Args;
use serde_json::json;

use super::{SlotName, target_slot};
use crate::boot;
use crate::boot::admission::Admission;
use crate::boot::slot_check::{self, SlotDevices};
use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;
use crate::machine::facts::target_name;
use crate::output::Outcome;

/// Arguments of `give-up`.
#[derive(Debug, Args)]
pub struct GiveUp {
    /// Which slot; needed in recovery, where none is booted. Else the one beside the booted one
    #[arg(long, value_enum)]
    pub slot: Option<SlotName>,
}

/// `bootctl give-up`.
pub fn give_up(machine: &Machine, arguments: &GiveUp) -> Result<Outcome> {
    let slot = target_slot(machine, arguments.slot)?;
    let (_lock, mut control) = boot::installing(machine, "give-up")?;
    let record = control.record()?;
    let entry = record.slot(slot);
    if entry.contents().is_none() {
        return Err(Failure::refused(format!("slot {slot} is empty"))
            .next("install something into it: `bootctl install SOURCE`"));
    }
    let admission = Admission::of(machine)?;
    let mut slot_parts = SlotDevices::open(machine, slot, Access::Read)?;
    let why = match slot_check::whole(&mut slot_parts, slot, &admission, &record) {
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
