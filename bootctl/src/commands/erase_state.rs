//! `erase-state`: what [`crate::state::erase`] does, told.

use clap::Args;
use serde_json::json;

use crate::failure::Result;
use crate::machine::Machine;
use crate::output::Outcome;
use crate::state::erase::erase;

/// Arguments of `erase-state`.
#[derive(Debug, Args)]
pub struct EraseState {
    /// Even one that could not be used for another reason than damage
    #[arg(long)]
    pub force: bool,
}

/// `bootctl erase-state`.
pub fn erase_state(machine: &Machine, arguments: &EraseState) -> Result<Outcome> {
    let device = erase(machine, arguments.force, "by an operator")?;
    Ok(Outcome::new(
        format!("{device} holds an empty filesystem; `bootctl reboot` starts with it"),
        json!({"erased": device}),
    ))
}
