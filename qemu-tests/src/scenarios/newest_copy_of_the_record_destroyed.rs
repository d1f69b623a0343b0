//! with the copy of the record destroyed that an activation wrote, the slot before starts; history says so, the copy is mended, and activated again the new version runs

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::expect;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "newest-copy-of-the-record-destroyed",
    shows: "with the copy of the record destroyed that an activation wrote, the slot before starts; history says so, the copy is mended, and activated again the new version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    machine.run_within(&install, Duration::from_secs(600))?;
    machine.run("bootctl activate")?;
    machine.power_off()?;
    slots::destroy_newest_copy(&disk)?;

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status_of(Version::First.number())?;
    expect(
        status["slots"]["b"]["status"] == "staged" && status["slots"]["b"]["priority"] == 0,
        "slot B as it was before its activation",
        &status["slots"],
    )?;
    machine.history_with("copy-repaired", Duration::from_secs(60))?;
    machine.run("bootctl activate")?;
    machine.reboot()?;
    machine.wait_until_good(Version::Second.number())?;
    Ok(())
}
