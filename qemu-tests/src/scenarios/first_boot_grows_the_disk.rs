//! a new disk boots, is grown to its full size, is marked good, and keeps what is written

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::steps::expect;

/// The machine's disk: larger than the image, as disks are.
const DISK: u64 = 6 << 30;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "first-boot-grows-the-disk",
    shows: "a new disk boots, is grown to its full size, is marked good, and keeps what is written",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: true,
    seconds: 90,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    disk.grow(DISK)?;
    let (_, shipped) = disk.bounds("state")?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["booted"]["first_boot"] == true,
        "a first boot",
        &status["booted"],
    )?;
    let size = status["state"]["size"].as_u64().unwrap_or(0);
    expect(
        size > DISK / 2,
        "a state filesystem of most of the disk",
        &status["state"],
    )?;
    machine.run("echo kept > /var/lib/kept && sync")?;
    let id = machine.run("cat /etc/machine-id")?;
    machine.power_off()?;

    let (_, grown) = disk.bounds("state")?;
    if grown <= shipped {
        bail!("the partition state has {grown} bytes, it was shipped with {shipped}");
    }
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["booted"]["first_boot"] == false,
        "no first boot",
        &status["booted"],
    )?;
    if machine.run("cat /var/lib/kept")? != "kept\n" || machine.run("cat /etc/machine-id")? != id {
        bail!("what was written to /var, or the machine's identity, did not outlive the restart");
    }
    Ok(())
}
