//! one disk with the generic kernel boots from virtio, then from NVMe, then from AHCI, and stays the same machine

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-moved-to-another-bus",
    shows: "one disk with the generic kernel boots from virtio, then from NVMe, then from AHCI, and stays the same machine",
    architecture: Architecture::X86_64,
    recipe: "minimal",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 160,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let mut id = String::new();
    for (bus, device) in [
        ("virtio", "/dev/vda"),
        ("nvme", "/dev/nvme0n1"),
        ("ahci", "/dev/sda"),
    ] {
        let options = Options {
            bus,
            memory: 2048,
            ..Options::default()
        };
        let mut machine = context.start_well(&[&disk], options, Version::First)?;
        let status = machine.status_of(Version::First.number())?;
        expect(
            status["booted"]["disk"] == device && status["booted"]["recorded"] == true,
            &format!("a recorded start from {device}"),
            &status["booted"],
        )?;
        let now = machine.run("cat /etc/machine-id")?;
        expect(
            id.is_empty() || id == now,
            "the same machine id",
            &now.clone().into(),
        )?;
        id = now;
        machine.power_off()?;
    }
    Ok(())
}
