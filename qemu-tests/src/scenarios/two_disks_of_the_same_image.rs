//! with a second disk of the same image plugged in, the machine uses its own disk and never touches the other

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "two-disks-of-the-same-image",
    shows: "with a second disk of the same image plugged in, the machine uses its own disk and never touches the other",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 60,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let other = context.disk(&context.image(Version::First)?.disk(), "other.raw", 512)?;
    let before = slots::record(&other)?;
    let mut machine = context.start_well(&[&disk, &other], Options::default(), Version::First)?;
    let nonce = slots::record(&disk)?.nonce.to_string();
    let status = machine.status()?;
    expect(
        status["booted"]["nonce"] == nonce.as_str(),
        "the nonce of the first disk",
        &status["booted"],
    )?;
    machine.power_off()?;
    if slots::record(&other)? != before || !slots::events(&other)?.is_empty() {
        bail!("the other disk's boot-state has changed");
    }
    // The other way round: what was the second disk boots, untouched by the first start, and touches the first no more.
    let before = (slots::record(&disk)?, slots::events(&disk)?);
    let mut machine = context.start_well(&[&other, &disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["booted"]["first_boot"] == true,
        "a first boot of the other disk",
        &status["booted"],
    )?;
    machine.power_off()?;
    if (slots::record(&disk)?, slots::events(&disk)?) != before {
        bail!("the first disk's boot-state has changed");
    }
    Ok(())
}
