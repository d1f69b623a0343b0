//! with the header of the primary partition table unreadable, the agent writes it again without touching the sectors beside it, at each start, and the machine is well

use std::ops::Range;

use anyhow::Result;

use crate::artefacts::Version;
use crate::fault::{Access, Faults};
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "table-with-a-read-error",
    shows: "with the header of the primary partition table unreadable, the agent writes it again without touching the sectors beside it, at each start, and the machine is well",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 80,
    run,
};

/// Protective MBR, header and entries on sectors of 512 bytes.
const TABLE: Range<u64> = 0..34 * 512;

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    context
        .start_well(&[&disk], Options::default(), Version::First)?
        .power_off()?;
    let before = disk.read(&TABLE)?;

    // A write through the page cache would have to read the seven sectors beside it first, with the one that fails.
    let faults = Faults::new(&disk).at_sector(1, Access::Read);
    let options = faults.options(context)?;
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    let history = machine.history()?;
    let has = |kind: &str, what: &str| {
        history.iter().any(|event| {
            let text = event["text"].as_str().unwrap_or_default();
            event["kind"] == kind && text.contains(what)
        })
    };
    expect(
        has("table-repaired", "the primary partition table")
            && !has("state-problem", "partition table"),
        "the history to say that the table was written, and nothing of a failure",
        &history.clone().into(),
    )?;
    machine.power_off()?;

    expect(
        before == disk.read(&TABLE)?,
        "the same table as before",
        &"other bytes".into(),
    )
}
