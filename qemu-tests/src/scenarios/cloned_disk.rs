//! a used disk cloned into another machine starts there as the same machine; with both in one, the one that was booted from is used and the other is not touched

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "cloned-disk",
    shows: "a used disk cloned into another machine starts there as the same machine; with both in one, the one that was booted from is used and the other is not touched",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 130,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (disk, mut machine) = context.well(Options::default())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let id = machine.run("cat /etc/machine-id")?;
    machine.power_off()?;
    let clone = context.disk(disk.path(), "clone.raw", 512)?;
    // Another board knows nothing of this disk.
    std::fs::remove_file(context.file("firmware-variables.fd"))?;

    for (booted, other) in [(&clone, &disk), (&disk, &clone)] {
        let (record, events) = (slots::record(other)?, slots::events(other)?);
        let disks = [booted, other];
        let mut machine = context.start_well(&disks, Options::default(), Version::First)?;
        let status = machine.status_of(Version::First.number())?;
        let nonce = slots::record(booted)?.nonce.to_string();
        expect(
            status["booted"]["nonce"] == nonce.as_str() && status["booted"]["disk"] == "/dev/vda",
            "the disk that the loader was started from",
            &status["booted"],
        )?;
        let now = machine.run("cat /etc/machine-id")?;
        expect(now == id, "the same machine id", &now.clone().into())?;
        machine.power_off()?;
        if slots::record(other)? != record || slots::events(other)? != events {
            bail!("the other disk's boot-state has changed");
        }
    }
    Ok(())
}
