//! One file a command, and what they share.

pub mod changes;
pub mod erase_state;
pub mod health;
pub mod history;
pub mod install;
pub mod profile;
pub mod reboot;
pub mod repair_slot;
pub mod status;
pub mod update_loader;
pub mod update_recovery;

use serde_json::Value;

use crate::cli::SlotName;
use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// The slot that a command is for: the one beside the booted one, or the one named in recovery.
pub fn target_slot(machine: &Machine, named: Option<SlotName>) -> Result<boot_core::Slot> {
    match (machine.slot(), named) {
        (Some(booted), None) => Ok(booted.other()),
        (Some(booted), Some(named)) => {
            let named = boot_core::Slot::from(named);
            if named == booted {
                return Err(
                    Failure::refused(format!("slot {booted} is the one that is running"))
                        .next("leave --slot out: bootctl takes the other slot"),
                );
            }
            Ok(named)
        }
        (None, Some(named)) => Ok(named.into()),
        (None, None) => Err(Failure::new(
            Code::Usage,
            "the recovery system is running, and no slot was named",
        )
        .next("add --slot a or --slot b; `bootctl status` shows what is in them")),
    }
}

/// Reboots if `now`, and says so.
pub fn then_reboot(machine: &Machine, now: bool, outcome: Outcome) -> Result<Outcome> {
    if !now {
        return Ok(outcome);
    }
    let Outcome { text, mut json, .. } = outcome;
    reboot::begin(machine)?;
    if let Value::Object(map) = &mut json {
        map.insert("rebooting".into(), true.into());
    }
    Ok(Outcome::new(format!("{text}; rebooting"), json))
}
