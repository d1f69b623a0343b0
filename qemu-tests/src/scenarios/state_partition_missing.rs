//! without a partition state the machine is up with its image's users, brings nothing up, says so and leaves alone what was there; the same where its journal cannot be written

use anyhow::{Result, bail};
use boot_core::Digest;

use crate::artefacts::Version;
use crate::disk::Disk;
use crate::fault::{Access, Faults};
use crate::machine::Options;
use crate::places;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-partition-missing",
    shows: "without a partition state the machine is up with its image's users, brings nothing up, says so and leaves alone what was there; the same where its journal cannot be written",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 200,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (disk, mut machine) = context.well(Options::default())?;
    let id = machine.leave_mark()?;
    machine.power_off()?;

    let before = digest_of_state(&disk)?;
    let table = disk.take_out("state")?;
    let mut machine = context.start(&[&disk], Options::default())?;
    let status = machine.wait_until_up_without_state()?;
    expect(
        status["state"]["check"]["problem"] == "missing"
            && status["health"]["brought_up"] == false
            && status["problems"]
                .to_string()
                .contains("no partition can be added"),
        "a machine that says that it has no partition for what it is to keep",
        &status,
    )?;
    machine.switch_off();
    disk.put_back(&table)?;
    if digest_of_state(&disk)? != before {
        bail!("something was written where the partition state had been");
    }

    let journal = places::journal(&disk)?;
    let faults = Faults::new(&disk).at("state", journal.start, Access::Write)?;
    let mut machine = context.start(&[&disk], faults.options(context)?)?;
    let status = machine.wait_until_up_without_state()?;
    expect(
        status["state"]["check"]["problem"] == "unusable",
        "a state that cannot be used",
        &status["state"],
    )?;
    machine.switch_off();

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.expect_mark(&id)
}

fn digest_of_state(disk: &Disk) -> Result<Digest> {
    let (_, size) = disk.bounds("state")?;
    let mut bytes = vec![0; size as usize];
    disk.partition("state")?.read(0, &mut bytes)?;
    Ok(Digest::of(&bytes))
}
