//! a lost superblock of state is restored from its copy, a lost journal made anew, and nothing is lost; on what a newer version left the machine is up, brings nothing up and says so

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::places;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-keeps-what-can-be-kept",
    shows: "a lost superblock of state is restored from its copy, a lost journal made anew, and nothing is lost; on what a newer version left the machine is up, brings nothing up and says so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 210,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (disk, mut machine) = context.well(Options::default())?;
    let id = machine.leave_mark()?;
    machine.power_off()?;

    let journal = places::journal(&disk)?;
    for (offset, length) in [(0, 4096), (journal.start, journal.end - journal.start)] {
        disk.zero("state", offset, length)?;
        let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
        let status = machine.status_of(Version::First.number())?;
        expect(
            status["state"]["check"]["status"] == "repaired",
            "a repaired state",
            &status["state"],
        )?;
        machine.expect_mark(&id)?;
        machine.power_off()?;
    }

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.run(
        "sed -i 's/\"state_epoch\": 1/\"state_epoch\": 2/' /state/sternpost/owner.json && grep -q 'epoch\": 2' /state/sternpost/owner.json",
    )?;
    machine.reboot()?;
    machine.wait_for_line(": unhealthy, stays up: ", machine.boot_limit())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let status = machine.status()?;
    let problems = status["problems"].to_string();
    expect(
        problems.contains("state epoch 2") && status["health"]["brought_up"] == false,
        "nothing brought up on what a newer version left",
        &status,
    )
}
