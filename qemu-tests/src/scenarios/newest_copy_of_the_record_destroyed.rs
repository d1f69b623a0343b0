//! with the copy of the record destroyed that an activation wrote, the slot before starts, the loader says so and writes the copy again, and activated again the new version runs

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "newest-copy-of-the-record-destroyed",
    shows: "with the copy of the record destroyed that an activation wrote, the slot before starts, the loader says so and writes the copy again, and activated again the new version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let (disk, mut machine) = context.well(Options::default())?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    machine.run_within(&install, Duration::from_secs(600))?;
    machine.run("bootctl activate")?;
    machine.power_off()?;
    slots::destroy_newest_copy(&disk)?;

    let mut machine = context.start(&[&disk], Options::default())?;
    machine.wait_for_line(
        "copy 0 no boot-state record here; copy 1 valid",
        machine.boot_limit(),
    )?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["slots"]["b"]["status"] == "staged" && slots::are_both_copies_valid(&disk)?,
        "slot B as it was before its activation, and two valid copies",
        &status,
    )?;
    machine.run("bootctl activate")?;
    machine.reboot()?;
    machine.wait_until_good(Version::Second.number())?;
    Ok(())
}
