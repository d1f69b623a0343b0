//! a new loader that panics says so and restarts the machine, which the old loader then starts; the reason is in history

use anyhow::Result;

use super::loader_that_comes_back_is_given_up::is_given_up;
use crate::loaders;
use crate::scenario::{Architecture, Begins, Context, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-that-panics-is-given-up",
    shows: "a new loader that panics says so and restarts the machine, which the old loader then starts; the reason is in history",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 200,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::one_that_fails(context, "panics")?;
    is_given_up(context, &new, Some("error in the loader: panicked at"))
}
