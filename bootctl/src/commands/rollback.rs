//! `rollback`: one commit.

use clap::Args;
use serde_json::json;

use super::starts_next;
use crate::boot::{Locked, slot_check};
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// Reboot into the other slot at once
    #[arg(long)]
    pub now: bool,
    /// Why, for the history
    #[arg(long, default_value = "by an operator")]
    pub reason: String,
}

/// `bootctl rollback`.
pub fn rollback(machine: &Machine, arguments: &Rollback) -> Result<Outcome> {
    let booted = machine.slot().ok_or_else(|| {
        Failure::refused("the recovery system is running: there is no slot to leave")
            .next("`bootctl activate --slot a` or `--slot b` chooses one")
    })?;
    let mut control = Locked::wait_for(machine, "rollback")?;
    let record = control.record()?;
    if record.slot(booted.other()).is_good() {
        slot_check::startable(machine, &record, booted.other())
            .map_err(|e| e.next("`bootctl install` something into it first"))?;
    }
    let record = control.rollback(booted, &arguments.reason)?;
    let other = record.slot(booted.other());
    let text = format!(
        "slot {} (version {}) starts next",
        booted.other(),
        other.version
    );
    let json = json!({"next": booted.other(), "version": other.version});
    starts_next(machine, arguments.now, Outcome::new(text, json))
}
