//! the plug pulled ten times in a row while the machine starts bricks nothing: both slots stay good, the next ten starts are well, five in each slot, and then both streaks are clear

use anyhow::Result;
use serde_json::Value;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "ten-plug-pulls-in-a-row",
    shows: "the plug pulled ten times in a row while the machine starts bricks nothing: both slots stay good, the next ten starts are well, five in each slot, and then both streaks are clear",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 660,
    run,
};

/// Starts that end with the plug.
const PULLS: u16 = 10;

/// How far a start may have come when it is pulled, from the loader's last words on: never as far as `bootctl serve`, which
/// is the end of a streak.
const PROGRESS: [&str; 5] = [
    "sternpost: initrd agent",
    "to switch-root",
    "Welcome to",
    "Reached target slices.target",
    "Starting sternpost-render.service",
];

/// Orderly starts after the pulls. In the middle the machine changes to the other slot.
const GOOD_STARTS: u32 = 10;

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    let mut chance = context.chance();
    for _ in 0..PULLS {
        let mut machine = context.start_recorded(&disk, Options::default())?;
        machine.wait_for_line("starting slot", machine.boot_limit())?;
        let further = chance.usize(0..=PROGRESS.len());
        for words in &PROGRESS[..further] {
            machine.wait_for_line(words, machine.boot_limit())?;
        }
        let loss = machine.lose_power(&disk, &mut chance)?;
        let after = PROGRESS[..further].last().unwrap_or(&"starting slot");
        eprintln!("after {after:?}: {loss}");
    }
    let record = slots::record(&disk)?;
    let streaks = [record.a.failure_streak, record.b.failure_streak];
    expect(
        record.a.is_good() && record.b.is_good() && streaks.iter().sum::<u16>() == PULLS,
        "two good slots with every pull in their streaks",
        &format!("{record:?}").into(),
    )?;

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let first = booted(&machine.status_of(Version::First.number())?);
    for start in 1..=GOOD_STARTS {
        let status = machine.status_of(Version::First.number())?;
        let slot = booted(&status);
        expect(
            (slot == first) == (start <= GOOD_STARTS / 2)
                && status["slots"][&slot]["failure_streak"] == 0,
            &format!("start {start} in its slot, whose streak is clear"),
            &status,
        )?;
        if start == GOOD_STARTS / 2 {
            // The other slot keeps its streak until it runs: only its own userland speaks for it.
            machine.run("bootctl rollback --now")?;
            machine.wait_for_boot(REBOOT)?;
        } else if start < GOOD_STARTS {
            machine.reboot()?;
        } else {
            break;
        }
        machine.wait_until_good(Version::First.number())?;
    }
    let status = machine.status()?;
    let slots = &status["slots"];
    expect(
        ["a", "b"]
            .iter()
            .all(|it| slots[it]["status"] == "good" && slots[it]["failure_streak"] == 0),
        "both slots good, both streaks clear",
        &status,
    )
}

fn booted(status: &Value) -> String {
    let slot = status["booted"]["slot"].as_str();
    slot.unwrap_or_default().to_owned()
}
