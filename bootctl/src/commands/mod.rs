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

use boot_core::{Digest, Nonce};

use crate::boot::control::{Context, Control};
use crate::cli::SlotName;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::os::clock;
use crate::os::device::BlockFile;

pub use reboot::{ask_without_bus, reboot_by_force};

/// Opens the boot state. Whoever opens it to write holds the lock.
pub fn control(machine: &Machine, write: bool) -> Result<Control<BlockFile>> {
    let device = machine.open("boot-state", write)?;
    Ok(Control::new(device, context(machine)))
}

/// What events of this run say.
pub fn context(machine: &Machine) -> Context {
    let nonce = machine.handover.as_ref().map_or(Nonce::ZERO, |h| h.nonce);
    Context {
        booted: machine.booted,
        nonce,
        now: clock::now,
    }
}

/// Digest of the manifest that runs.
pub fn booted_digest(machine: &Machine) -> Option<Digest> {
    Some(machine.boot.manifest_digest)
}

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
            crate::failure::Code::Usage,
            "the recovery system is running, and no slot was named",
        )
        .next("add --slot a or --slot b; `bootctl status` shows what is in them")),
    }
}
