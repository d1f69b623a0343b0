//! recovery has the name, users and keys of the machine: reached over SSH, it writes slot B anew from slot A, and the machine runs from it

use std::time::Duration;

use anyhow::Result;
use boot_core::Target;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "recovery-is-reached-over-ssh",
    shows: "recovery has the name, users and keys of the machine: reached over SSH, it writes slot B anew from slot A, and the machine runs from it",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let options = || Options {
        memory: 2048,
        ..Options::default()
    };
    let (disk, mut machine) = context.well(options())?;
    machine.power_off()?;
    drop(machine);
    slots::twin(&disk, true)?;
    slots::damage_uki(&disk, Target::B)?;
    let mut machine = context.start_well(&[&disk], options(), Version::First)?;
    let _ = machine.run("bootctl reboot --recovery");
    machine.wait_for_boot(REBOOT)?;
    machine.wait_for_line("starting recovery", REBOOT)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let status = machine.status()?;
    expect(
        status["booted"]["slot"] == "recovery",
        "recovery to run",
        &status["booted"],
    )?;
    let name = machine.run("cat /proc/sys/kernel/hostname")?;
    expect(name.trim() == "tested", "the machine's name", &name.into())?;
    let repair = "bootctl repair-slot --slot b --now";
    machine.run_until_boot(repair, Duration::from_secs(600))?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["booted"]["slot"] == "b" && status["slots"]["a"]["status"] == "good",
        "slot B to run, and slot A to be good",
        &status,
    )
}
