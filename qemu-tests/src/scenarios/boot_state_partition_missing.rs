//! without a partition boot-state one of what verifies starts, is reached and says what is missing; with it back the machine is well

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "boot-state-partition-missing",
    shows: "without a partition boot-state one of what verifies starts, is reached and says what is missing; with it back the machine is well",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 120,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (disk, mut machine) = context.well(Options::default())?;
    machine.power_off()?;
    let table = disk.take_out("boot-state")?;

    let mut machine = context.start(&[&disk], Options::default())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let (code, said) = machine.run_refused("bootctl status", REBOOT)?;
    expect(
        code == 1 && said.contains("has no partition boot-state"),
        "a status that says what is missing",
        &said.into(),
    )?;
    machine.power_off()?;

    disk.put_back(&table)?;
    context
        .start_well(&[&disk], Options::default(), Version::First)
        .map(drop)
}
