//! `install`: what [`crate::install::into_slot`] does, told. What is refused is listed in `install::preconditions`.

use boot_core::record::SlotStatus;
use clap::Args;
use indicatif::HumanBytes;
use serde_json::json;

use super::{SlotName, Wait, target_slot, then_reboot};
use crate::failure::Result;
use crate::install::into_slot::{Request, into_slot};
use crate::machine::Machine;
use crate::output::Outcome;

/// Arguments of `install`.
#[derive(Debug, Args)]
pub struct Install {
    /// A bundle (.spb): a file, - for standard input, or an http:// or https:// address
    pub source: String,
    /// Activate it and reboot when it is in place
    #[arg(long)]
    pub now: bool,
    /// Install even a bundle that is in quarantine, and release it; or one that runs already
    #[arg(long)]
    pub force: bool,
    /// Which slot; needed in recovery, where none is booted. Else the one beside the booted one
    #[arg(long, value_enum)]
    pub slot: Option<SlotName>,
    #[command(flatten)]
    pub wait: Wait,
}

/// `bootctl install`.
pub fn install(machine: &Machine, arguments: &Install) -> Result<Outcome> {
    let slot = target_slot(machine, arguments.slot)?;
    let installed = into_slot(
        machine,
        Request {
            source: &arguments.source,
            slot,
            force: arguments.force,
            activate: arguments.now,
            patience: arguments.wait.patience(),
            unwanted: &[],
        },
    )?;
    let mut text = if installed.was_there {
        format!(
            "version {} is in slot {slot} already, complete",
            installed.version
        )
    } else {
        format!(
            "version {} is in slot {slot}: {} fetched, {} of {} were here already",
            installed.version,
            HumanBytes(installed.fetched),
            HumanBytes(installed.reused),
            HumanBytes(installed.size),
        )
    };
    let status = if arguments.now {
        SlotStatus::Trial
    } else {
        text.push_str("; start it with `bootctl activate --now`");
        SlotStatus::Staged
    };
    let json = json!({"installed": installed, "status": status.name()});
    then_reboot(machine, arguments.now, Outcome::new(text, json))
}
