//! on a disk with sectors of 4096 bytes, a new image boots, grows, is upgraded and marked good

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::scenarios::upgrade_is_marked_good;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "sectors-of-4096-bytes",
    shows: "on a disk with sectors of 4096 bytes, a new image boots, grows, is upgraded and marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 120,
    run,
};

fn run(context: &Context) -> Result<()> {
    let built = context.image_for(Version::First, 4096)?;
    let disk = context.disk(&built.disk(), "disk.raw", 4096)?;
    disk.grow(6 << 30)?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["state"]["size"].as_u64() > Some(2 << 30),
        "a grown state filesystem",
        &status["state"],
    )?;
    upgrade_is_marked_good::is_upgraded(context, &mut machine)
}
