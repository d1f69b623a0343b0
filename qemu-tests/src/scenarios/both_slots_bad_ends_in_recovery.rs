//! with a flipped bit in one slot's UKI and a wrong key in the other slot, recovery comes up with network and console, says why, and installs a working system from HTTP

use std::time::Duration;

use anyhow::Result;
use boot_core::{Slot, Target};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "both-slots-bad-ends-in-recovery",
    shows: "with a flipped bit in one slot's UKI and a wrong key in the other slot, recovery comes up with network and console, says why, and installs a working system from HTTP",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    let uki = slots::uki(&disk, Target::A)?;
    disk.flip_any_bit("boot-a", uki, &mut context.chance())?;
    slots::sign_again(&disk, Slot::B, &context.artefacts().other_keys()?, |_| {})?;
    let mut machine = context.start(
        &[&disk],
        Options {
            memory: 2048,
            ..Options::default()
        },
    )?;
    machine.wait_for_boot(machine.boot_limit())?;
    machine.wait_for_line("starting recovery", machine.boot_limit())?;
    let said = machine.console().text();
    for reason in [
        "slot A: not started: its UKI does not have the digest",
        "slot B: not started: the manifest is not signed",
    ] {
        expect(said.contains(reason), reason, &said.as_str().into())?;
    }
    machine.wait_for_line("root@", machine.boot_limit())?;
    machine.type_line("bootctl status")?;
    for problem in [
        "! the loader did not start slot B: the manifest is not signed",
        "! the loader did not start slot A: its UKI does not have the digest",
        "! the recovery system is running",
    ] {
        machine.wait_for_line(problem, Duration::from_secs(60))?;
    }

    machine.type_line(&format!(
        "bootctl install --slot a --now {}",
        server.url("bundle.spb")
    ))?;
    machine.wait_for_boot(Duration::from_secs(300) + REBOOT)?;
    let status = machine.wait_until_good(Version::Second.number())?;
    expect(
        status["booted"]["slot"] == "a",
        "slot A to run",
        &status["booted"],
    )
}
