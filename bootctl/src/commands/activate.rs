//! `activate`: one commit.

use block_file::Access;
use boot_core::verify::would_start;
use clap::Args;
use serde_json::json;

use super::{SlotName, starts_next, target_slot};
use crate::boot::Locked;
use crate::boot::admission::Admission;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// Arguments of `activate`.
#[derive(Debug, Args)]
pub struct Activate {
    /// Reboot into it at once
    #[arg(long)]
    pub now: bool,
    /// Which slot; needed in recovery, where none is booted. Else the one beside the booted one
    #[arg(long, value_enum)]
    pub slot: Option<SlotName>,
}

/// `bootctl activate`.
pub fn activate(machine: &Machine, arguments: &Activate) -> Result<Outcome> {
    let slot = target_slot(machine, arguments.slot)?;
    let mut control = Locked::wait_for(machine, "activate")?;
    let record = control.record()?;
    if record.slot(slot).contents().is_some() {
        // Not the tries of a slot that the loader would reject anyway.
        let mut device = machine.open(slot.label_boot(), Access::Read)?;
        would_start(&mut device, slot.into(), &Admission::of(machine)?, &record).map_err(
            |rejected| {
                Failure::verification(rejected)
                    .doing(format!("verifying slot {slot}"))
                    .next("install it again")
            },
        )?;
    }
    let record = control.activate(slot)?;
    let entry = record.slot(slot);
    let text = format!(
        "slot {slot} (version {}) starts next, with {} tries",
        entry.version, entry.tries
    );
    let json = json!({"activated": slot, "version": entry.version, "tries": entry.tries});
    starts_next(machine, arguments.now, Outcome::new(text, json))
}
