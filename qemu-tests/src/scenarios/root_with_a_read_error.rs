//! a version on trial whose root cannot be read restarts the machine by dm-verity, and after its tries the other slot runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::fault::{Access, Faults};
use crate::scenario::{Architecture, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "root-with-a-read-error",
    shows: "a version on trial whose root cannot be read restarts the machine by dm-verity, and after its tries the other slot runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 110,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, false)?;
    // The superblock of the filesystem: what is read first.
    let faults = Faults::new(&disk).at("root-b", 1024, Access::Read)?;
    let mut machine = context.start(&[&disk], faults.options(context)?)?;
    for _ in 0..3 {
        machine.wait_for_boot(machine.boot_limit())?;
        machine.wait_for_line("starting slot B", REBOOT)?;
        machine.wait_for_line("I/O error", machine.boot_limit())?;
    }
    machine.wait_for_boot(machine.boot_limit())?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["booted"]["slot"] == "a" && status["slots"]["b"]["status"] == "unproven",
        "slot A to run and slot B to be unproven",
        &status,
    )
}
