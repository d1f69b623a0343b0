//! `mark-good`: one commit.

use serde_json::json;

use crate::boot::Locked;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// `bootctl mark-good`.
pub fn mark_good(machine: &Machine) -> Result<Outcome> {
    let slot = machine.slot().ok_or_else(|| {
        Failure::refused("the recovery system is running: it is not marked good").next(
            "a slot is marked good while it runs: `bootctl activate --slot a --now` or `--slot b`",
        )
    })?;
    let mut control = Locked::wait_for(machine, "mark-good")?;
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
        json!({"marked_good": slot, "version": entry.version, "was_good": was_good,
            "floor": record.floors.system.security_version, "keyring_floor": record.floors.system.keyring_serial}),
    ))
}
