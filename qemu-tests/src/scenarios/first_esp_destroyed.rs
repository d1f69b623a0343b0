//! a machine whose first ESP is destroyed starts from the second, and says so

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "first-esp-destroyed",
    shows: "a machine whose first ESP is destroyed starts from the second, and says so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 45,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let (_, size) = disk.bounds("esp-a")?;
    disk.zero("esp-a", 0, size)?;
    let mut machine = context.start(&[&disk], Options::default())?;
    machine.wait_for_boot(machine.boot_limit())?;
    machine.wait_for_line("loaded from esp-b", machine.boot_limit())?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["esps"]["esp-a"]["ok"] == false,
        "the first ESP to be named",
        &status["esps"],
    )?;
    expect(
        status["esps"]["esp-b"]["ok"] == true,
        "the second ESP to be well",
        &status["esps"],
    )
}
