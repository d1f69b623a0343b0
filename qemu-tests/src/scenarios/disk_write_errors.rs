//! a disk that refuses to write the other slot costs the installation alone; one that refuses to write the record still starts the good slot, and says so

use std::time::Duration;

use anyhow::Result;
use boot_core::store::COPIES;

use crate::artefacts::Version;
use crate::fault::{Access, Faults};
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-write-errors",
    shows: "a disk that refuses to write the other slot costs the installation alone; one that refuses to write the record still starts the good slot, and says so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 170,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::First)?.directory())?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    let disk = context.first_disk()?;
    let faults = Faults::new(&disk).at("root-b", 5 << 20, Access::Write)?;
    let mut machine = context.start_well(&[&disk], faults.options(context)?, Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let (code, said) = machine.run_refused(&install, Duration::from_secs(300))?;
    expect(
        code == 1 && said.contains("writing the root") && said.contains("next: look at the disk"),
        "an installation that says what failed and what to do",
        &said.into(),
    )?;
    let status = machine.status()?;
    expect(
        status["slots"]["a"]["status"] == "good" && status["slots"]["b"]["status"] == "empty",
        "slot A good and slot B empty",
        &status["slots"],
    )?;
    machine.power_off()?;

    let [first, second] = COPIES;
    let faults = Faults::new(&disk)
        .at("boot-state", first, Access::Write)?
        .at("boot-state", second, Access::Write)?;
    let mut machine = context.start_well(&[&disk], faults.options(context)?, Version::First)?;
    let status = machine.status_of(Version::First.number())?;
    expect(
        status["booted"]["why"] == "unrecorded" && status["booted"]["recorded"] == false,
        "a start that could not be recorded",
        &status["booted"],
    )?;
    let (code, said) = machine.run_refused("bootctl reboot --recovery", Duration::from_secs(60))?;
    expect(
        code == 1 && said.contains("writing the boot-state record"),
        "a change that says that it was not written",
        &said.into(),
    )?;
    // The same installation goes on where it stopped, on a disk that writes again.
    machine.power_off()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.run_within(&install, Duration::from_secs(300))?;
    let status = machine.status()?;
    expect(
        status["slots"]["b"]["status"] == "staged",
        "slot B to be staged",
        &status["slots"],
    )
}
