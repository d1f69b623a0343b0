//! a new loader is started from the second ESP, once; when a good slot runs from it, the first ESP gets it too

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::loaders;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-update-reaches-both-esps",
    shows: "a new loader is started from the second ESP, once; when a good slot runs from it, the first ESP gets it too",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: true,
    seconds: 100,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::another(context)?;
    let server = Server::start(&new.directory)?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.update_loader_now(&server.url("loader.spb"))?;
    machine.wait_for_line("loaded from esp-b", REBOOT)?;
    machine.wait_until_good(Version::First.number())?;
    machine.history_with(
        "has started this machine: on both ESPs",
        Duration::from_secs(120),
    )?;
    let status = machine.status()?;
    let both = |key: &str| [&status["esps"]["esp-a"][key], &status["esps"]["esp-b"][key]];
    expect(
        both("loader")
            .iter()
            .all(|it| it.as_str() == Some(&new.digest.to_string())),
        "the new loader on both ESPs",
        &status["esps"],
    )?;
    // The next start is in firmware's own order, from the first ESP: from the new loader.
    machine.reboot()?;
    machine.wait_for_line("loaded from esp-a", REBOOT)?;
    machine.wait_for_line("starting slot A", REBOOT)?;
    Ok(())
}
