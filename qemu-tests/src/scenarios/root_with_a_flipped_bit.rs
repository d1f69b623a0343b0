//! a version on trial whose root has a flipped bit is stopped by dm-verity; after its tries the other slot runs, reads it and says why

use anyhow::Result;

use crate::artefacts::Version;
use crate::disk::Disk;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "root-with-a-flipped-bit",
    shows: "a version on trial whose root has a flipped bit is stopped by dm-verity; after its tries the other slot runs, reads it and says why",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 110,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, false)?;
    // The block with the superblock of the filesystem: what is read first.
    disk.flip_any_bit("root-b", 0..4096, &mut context.chance())?;
    stopped_by_verity(
        context,
        &disk,
        Options::default(),
        "is corrupted",
        "block 0",
    )
}

/// Starts what is on trial in slot B until dm-verity has used up its tries, each time with `sign` on the console. Slot A
/// has to run then, and to have read the root of B, of which it says `what`.
pub(super) fn stopped_by_verity(
    context: &Context,
    disk: &Disk,
    options: Options,
    sign: &str,
    what: &str,
) -> Result<()> {
    let mut machine = context.start(&[disk], options)?;
    for _ in 0..3 {
        machine.wait_for_boot(machine.boot_limit())?;
        machine.wait_for_line("starting slot B", REBOOT)?;
        // dm-verity restarts the machine itself, before anybody could write the reason down.
        machine.wait_for_line(sign, machine.boot_limit())?;
    }
    machine.wait_for_boot(machine.boot_limit())?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["booted"]["slot"] == "a",
        "slot A to run",
        &status["booted"],
    )?;
    // After its own verdict the slot that runs reads the root of the one that ended without a word.
    let history = machine.history_with("given-up", REBOOT)?;
    for kind in ["unproven", "root-corrupt", "given-up"] {
        expect(
            history.iter().any(|event| event["kind"] == kind),
            &format!("the history to have {kind}"),
            &history.clone().into(),
        )?;
    }
    expect(
        history.iter().any(|event| {
            let text = event["text"].as_str().unwrap_or_default();
            event["slot"] == "b" && text.contains(&format!("the root is damaged: {what}"))
        }),
        "the history to say what is wrong with it",
        &history.into(),
    )
}
