//! a bit of the running root flips after mark-good: verity stops it, the machine restarts, reads its root, and the other slot takes over

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "root-rots-while-running",
    shows: "a bit of the running root flips after mark-good: verity stops it, the machine restarts, reads its root, and the other slot takes over",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 120,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    expect_slot(&machine.status()?, "b")?;

    // The last block of the data: nothing that every start reads.
    let sectors: u64 = machine.run("cat /sys/block/dm-0/size")?.trim().parse()?;
    let block = (sectors / 8).checked_sub(1).context("an empty root")?;
    disk.flip_bit("root-b", block * 4096 + 99)?;
    machine.run("echo 3 >/proc/sys/vm/drop_caches")?;
    let mut reading = machine.run_beside(&format!(
        "dd if=/dev/dm-0 of=/dev/null bs=4096 skip={block} count=1 iflag=direct"
    ))?;
    machine.wait_for_line("is corrupted", machine.boot_limit())?;
    let _ = reading.kill();
    let _ = reading.wait();

    // The slot is good, so it is started again; after such an end it reads its root before anything is believed of it.
    machine.wait_for_boot(REBOOT)?;
    machine.wait_for_line("starting slot B", REBOOT)?;
    let reason = format!("the root is damaged: block {block} is not what was signed");
    let line = machine.wait_for_any(&[": healthy ", ": unhealthy, "], machine.boot_limit())?;
    expect(
        line.contains(&reason),
        "the reason on the console",
        &line.into(),
    )?;
    machine.wait_for_boot(REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect_slot(&status, "a")?;
    expect(
        status["slots"]["b"]["status"] == "given-up",
        "slot B to be given up",
        &status["slots"],
    )?;
    expect(
        status["slots"]["b"]["quarantined"] == false,
        "nothing to be said against the image",
        &status["slots"],
    )?;
    let history = machine.history()?;
    for kind in ["unclean-shutdown", "root-corrupt", "given-up"] {
        expect(
            history.iter().any(|event| event["kind"] == kind),
            &format!("the history to have {kind}"),
            &history.clone().into(),
        )?;
    }
    expect(
        history
            .iter()
            .any(|event| event["text"].as_str() == Some(&reason)),
        "the history to name the block",
        &history.into(),
    )
}

fn expect_slot(status: &Value, slot: &str) -> Result<()> {
    let booted = &status["booted"];
    expect(
        booted["slot"] == slot,
        &format!("slot {slot} to run"),
        booted,
    )
}
