//! a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts

use anyhow::Result;

use super::loader_that_comes_back_is_given_up::is_given_up;
use crate::loaders;
use crate::scenario::{Architecture, Begins, Context, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-that-faults-is-given-up",
    shows: "a new loader that makes the processor raise an exception says so and restarts the machine, which the old loader then starts",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 200,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::one_that_fails(context, "faults")?;
    let says = match context.scenario().architecture {
        Architecture::X86_64 => "sternpost: exception 6 of the processor",
        Architecture::Aarch64 => "sternpost: exception 0 of the processor",
    };
    is_given_up(context, &new, Some(says))
}
