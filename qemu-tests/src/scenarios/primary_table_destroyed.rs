//! a machine whose primary partition table is destroyed starts by the backup, and the agent writes the primary again

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "primary-table-destroyed",
    shows: "a machine whose primary partition table is destroyed starts by the backup, and the agent writes the primary again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 90,
    run,
};

/// Protective MBR, header and entries on sectors of 512 bytes.
const FIRST: usize = 34 * 512;

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let bounds = disk.bounds("root-a")?;
    // Header and entries, while the machine is off: the firmware must find the ESP.
    disk.overwrite(512, &[0; FIRST - 512])?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;

    // OVMF writes the primary again before it starts anything. Other firmware does not; so once more, when the firmware
    // has had its turn, and the MBR with it: now the kernel finds no partitions until the agent has written both.
    let _ = machine.run("systemctl reboot");
    machine.wait_for_line("starting slot A", REBOOT)?;
    disk.overwrite(0, &[0; FIRST])?;
    machine.wait_until_good(Version::First.number())?;
    let history = machine.history()?;
    expect(
        history.iter().any(|event| {
            event["kind"] == "table-repaired"
                && event["text"].as_str().is_some_and(|text| {
                    text.contains("the primary partition table, the protective MBR")
                })
        }),
        "the history to say that the table was written again",
        &history.into(),
    )?;

    // And what was written is a table to others as well.
    machine.power_off()?;
    let found = disk.bounds("root-a")?;
    expect(
        found == bounds,
        "root-a to lie where it was",
        &format!("{found:?}").into(),
    )?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let history = machine.history()?;
    let repaired = history
        .iter()
        .filter(|event| event["kind"] == "table-repaired");
    expect(
        repaired.count() == 1,
        "nothing left to repair",
        &history.clone().into(),
    )
}
