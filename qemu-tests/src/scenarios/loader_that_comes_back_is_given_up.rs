//! a new loader that ends with an error is left by firmware at once; the reason is in history, and its ESP gets the old loader back

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::loaders::{self, Loader};
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-that-comes-back-is-given-up",
    shows: "a new loader that ends with an error is left by firmware at once; the reason is in history, and its ESP gets the old loader back",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 140,
    run,
};

fn run(context: &Context) -> Result<()> {
    is_given_up(context, &loaders::one_that_comes_back(context)?, None)
}

/// Updates to a loader that does not start the machine, which `says` so if it says anything.
pub(super) fn is_given_up(context: &Context, new: &Loader, says: Option<&str>) -> Result<()> {
    let server = Server::start(&new.directory)?;
    let (disk, mut machine) = context.well(Options::default())?;
    let old = loaders::on(context, &disk, "esp-a")?;
    machine.update_loader_now(&server.url("loader.spb"))?;
    if let Some(words) = says {
        machine.wait_for_line(words, REBOOT)?;
    }
    machine.wait_for_line("loaded from esp-a", REBOOT)?;
    machine.wait_until_good(Version::First.number())?;
    machine.history_with(
        "started from esp-a instead of esp-b",
        Duration::from_secs(120),
    )?;
    let status = machine.status()?;
    expect(
        status["esps"]["esp-b"]["loader"].as_str() == Some(&old.to_string()),
        "the old loader on the second ESP",
        &status["esps"],
    )
}
