//! with no copy of its superblock left, state is kept as it is and the machine is up without it, saying why; it is erased when the profile says so

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-damaged-beyond-repair",
    shows: "with no copy of its superblock left, state is kept as it is and the machine is up without it, saying why; it is erased when the profile says so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 260,
    run,
};

/// Beginning and length of what holds the superblock, its copy in the second group, and what belongs to them.
const LOST: [(u64, u64); 2] = [(0, 1 << 20), (128 << 20, 1 << 20)];

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    for (offset, length) in LOST {
        disk.zero("state", offset, length)?;
    }
    let mut machine = context.start(&[&disk], Options::default())?;
    machine.wait_for_boot(machine.boot_limit())?;
    let status = machine.wait_until_up_without_state()?;
    expect(
        status["state"]["check"]["problem"] == "damaged",
        "a damaged state",
        &status["state"],
    )?;
    let problems = status["problems"].to_string();
    expect(
        problems.contains("no ext4 superblock") && problems.contains("erase-state"),
        "what is wrong and what to do",
        &status["problems"],
    )?;
    let history = machine.history()?;
    expect(
        history.iter().any(|event| event["kind"] == "state-problem"),
        "an event that says so",
        &history.into(),
    )?;
    for (offset, length) in LOST {
        let mut bytes = vec![0; length as usize];
        disk.partition("state")?.read(offset, &mut bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            bail!("something was written to the damaged state, though nobody had said so");
        }
    }

    machine.add_to_profile("state: {on_damage: erase}")?;
    // A profile is chosen once a boot, or when somebody says so.
    machine.run("bootctl profile apply && systemctl restart sternpost.service")?;
    machine.wait_for_line("was damaged and has been erased", machine.boot_limit())?;
    machine.wait_for_boot(REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["state"]["check"]["status"] == "ok" && status["booted"]["first_boot"] == true,
        "a machine as on its first day",
        &status,
    )
}
