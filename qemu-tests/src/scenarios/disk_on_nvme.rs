//! a disk on NVMe boots, grows and is marked good

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-on-nvme",
    shows: "a disk on NVMe boots, grows and is marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 50,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    disk.grow(6 << 30)?;
    let options = Options {
        bus: "nvme",
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    let status = machine.status()?;
    expect(
        status["state"]["size"].as_u64() > Some(2 << 30),
        "a grown state filesystem",
        &status["state"],
    )
}
