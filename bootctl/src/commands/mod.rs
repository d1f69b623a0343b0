//! One file a command, and what they share.

pub mod activate;
pub mod erase_state;
pub mod give_up;
pub mod health;
pub mod history;
pub mod install;
pub mod mark_good;
pub mod profile;
pub mod reboot;
pub mod repair_slot;
pub mod rollback;
pub mod status;
pub mod time;
pub mod update_loader;
pub mod update_recovery;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;
use crate::output::Outcome;

/// A slot on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SlotName {
    /// Slot A
    A,
    /// Slot B
    B,
}

impl From<SlotName> for boot_core::Slot {
    fn from(name: SlotName) -> Self {
        match name {
            SlotName::A => Self::A,
            SlotName::B => Self::B,
        }
    }
}

/// How long a source is tried for, where nobody is there to say it again.
#[derive(Debug, Args)]
pub struct Wait {
    /// Go on for up to SECONDS while network or server fail, once the bundle has begun to arrive, not for a minute
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u32>,
}

impl Wait {
    /// None: as long as somebody would watch it.
    pub fn patience(&self) -> Option<Duration> {
        self.wait.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// The slot that a command is for: the one beside the booted one, or the one named in recovery. Which slots may not be
/// written is another question: see the head of `install::preconditions`.
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

/// The same where another slot starts next: says how to get there, if not `now`.
fn starts_next(machine: &Machine, now: bool, mut outcome: Outcome) -> Result<Outcome> {
    if !now {
        outcome.text.push_str("; reboot with `bootctl reboot`");
    }
    then_reboot(machine, now, outcome)
}
