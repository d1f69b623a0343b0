//! on ARM64, a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts

use anyhow::Result;

use super::loader_that_comes_back_is_given_up::is_given_up;
use crate::loaders;
use crate::scenario::{Architecture, Context, Scenario};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-loader-that-faults-is-given-up",
    shows: "on ARM64, a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts",
    architecture: Architecture::Aarch64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 300,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::one_that_fails(context, "faults")?;
    is_given_up(
        context,
        &new,
        Some("sternpost: exception 0 of the processor"),
    )
}
