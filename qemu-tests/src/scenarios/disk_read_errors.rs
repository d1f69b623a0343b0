//! sectors of an ESP, of a slot, of a copy of the record, of history and of state cannot be read: the machine starts from what can be, names each, and once the disk reads again nothing is lost

use anyhow::Result;
use boot_core::Target;
use boot_core::event::ENTRIES;
use boot_core::store::{COPIES, EVENT_RING, STRIDE};
use serde_json::Value;

use crate::artefacts::Version;
use crate::fault::{Access, Faults};
use crate::machine::{Machine, Options};
use crate::places;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{expect, expect_rejected};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-read-errors",
    shows: "sectors of an ESP, of a slot, of a copy of the record, of history and of state cannot be read: the machine starts from what can be, names each, and once the disk reads again nothing is lost",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 220,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let id = machine.leave_mark()?;
    let last = machine
        .history()?
        .iter()
        .filter_map(|event| event["sequence"].as_u64())
        .max();
    machine.power_off()?;

    let uki = slots::uki(&disk, Target::B)?;
    let middle = (uki.start + uki.end) / 2 / 512 * 512;
    let faults = Faults::new(&disk)
        .at("esp-a", places::first_fat(&disk, "esp-a")?, Access::Read)?
        .at("boot-b", middle, Access::Read)?
        .at("boot-state", place_after(last), Access::Read)?
        .at("state", places::SUPERBLOCK, Access::Read)?;
    let mut machine = context.start(&[&disk], faults.options(context)?)?;
    let status = wait_until_up(&mut machine, "esp-b", "a")?;
    expect_rejected(&status, "b", "cannot be read")?;
    expect_problems(&status, &["esp-a: ", "did not start slot B"])?;
    let history = machine.history()?;
    // The place that the next event would have had takes what is written and does not give it back.
    expect(
        ["rejected", "state-problem"]
            .iter()
            .all(|kind| history.iter().any(|event| event["kind"] == *kind)),
        "a history that names both",
        &history.into(),
    )?;
    machine.switch_off();

    let [lost_copy, _] = COPIES;
    let journal = places::journal(&disk)?;
    let faults = Faults::new(&disk)
        .at("esp-b", places::first_fat(&disk, "esp-b")?, Access::Read)?
        .at("boot-a", 0, Access::Read)?
        .at("boot-state", lost_copy, Access::Read)?
        .at("state", journal.start, Access::Read)?;
    let mut machine = context.start_unrecorded(&disk, &faults.options(context)?)?;
    let status = what_runs(&mut machine, "esp-a", "b")?;
    // A commit that cannot be read back is none.
    expect(
        status["booted"]["why"] == "unrecorded",
        "a start that could not be recorded",
        &status["booted"],
    )?;
    let lost_copy = "copy 0 of the boot-state record: cannot be read";
    expect_problems(&status, &["esp-b: ", "slot A: ", lost_copy])?;
    machine.switch_off();

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status_of(Version::First.number())?;
    machine.expect_mark(&id)?;
    expect(
        status["booted"]["slot"] == "b"
            && status["slots"]["a"]["status"] == "good"
            && ["esp-a", "esp-b"]
                .iter()
                .all(|esp| status["esps"][esp]["ok"] == true),
        "the machine that it was",
        &status,
    )
}

/// Where in `boot-state` the event after number `last` goes.
fn place_after(last: Option<u64>) -> u64 {
    EVENT_RING + last.map_or(0, |last| (last + 1) % ENTRIES) * STRIDE
}

/// Waits until `slot` is started from `esp` and runs; what `status` says then.
fn wait_until_up(machine: &mut Machine<'_>, esp: &str, slot: &str) -> Result<Value> {
    let limit = machine.boot_limit();
    machine.wait_for_line(&format!("loaded from {esp}"), limit)?;
    let starting = format!("starting slot {}", slot.to_uppercase());
    machine.wait_for_line(&starting, limit)?;
    what_runs(machine, esp, slot)
}

/// Waits until `slot` runs with a `state` that is not in use, and `esp` is well; what `status` says.
fn what_runs(machine: &mut Machine<'_>, esp: &str, slot: &str) -> Result<Value> {
    let status = machine.wait_until_up_without_state()?;
    expect(
        status["booted"]["slot"] == slot
            && status["esps"][esp]["ok"] == true
            && status["state"]["check"]["problem"] == "unusable",
        "what can be read to run",
        &status,
    )?;
    expect_problems(&status, &["the state partition is not in use"])?;
    Ok(status)
}

fn expect_problems(status: &Value, said: &[&str]) -> Result<()> {
    let problems = status["problems"].to_string();
    expect(
        said.iter().all(|what| problems.contains(what)),
        &format!("a word about each of {said:?}"),
        &status["problems"],
    )
}
