//! a bit of the running root flips after mark-good: verity stops it, the machine restarts, reads its root, says why it leaves it, and the other slot takes over for good

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "root-rots-while-running",
    shows: "a bit of the running root flips after mark-good: verity stops it, the machine restarts, reads its root, says why it leaves it, and the other slot takes over for good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 160,
    run,
};

/// How many blocks at the end of the root chance has to choose from.
const LAST: u64 = 16;

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    expect_slot(&machine.status()?, "b")?;

    // One of the last blocks of the data: nothing that every start reads.
    let mut chance = context.chance();
    let sectors: u64 = machine.run("cat /sys/block/dm-0/size")?.trim().parse()?;
    let block = (sectors / 8)
        .checked_sub(1 + chance.u64(0..LAST))
        .context("an empty root")?;
    disk.flip_any_bit("root-b", block * 4096..(block + 1) * 4096, &mut chance)?;
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
    let streak = slots::record(&disk)?.b.failure_streak;
    expect(
        streak == 1,
        "slot B to have a start that nothing has spoken for yet",
        &streak.into(),
    )?;
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
    expect(
        status["problems"].to_string().contains(&format!(
            "slot B (version {}) was given up",
            Version::First.number()
        )),
        "a word about slot B",
        &status["problems"],
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
    )?;

    // It is no loop: the machine stays where it is.
    machine.reboot()?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect_slot(&status, "a")?;
    let [starts_of_b, starts_of_a] =
        ["starting slot B", "starting slot A"].map(|line| machine.console().count(line));
    expect(
        (starts_of_b, starts_of_a) == (2, 2)
            && ["a", "b"]
                .iter()
                .all(|slot| status["slots"][slot]["failure_streak"] == 0),
        "two starts of each slot, and no streak that goes on",
        &format!("B {starts_of_b}, A {starts_of_a}: {}", status["slots"]).into(),
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
