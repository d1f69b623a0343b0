//! the roots of both slots rot: dm-verity ends start after start, recovery comes up, says which root is damaged, and is told over SSH to install what works

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "both-roots-rot-ends-in-recovery",
    shows: "the roots of both slots rot: dm-verity ends start after start, recovery comes up, says which root is damaged, and is told over SSH to install what works",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 500,
    run,
};

/// More starts than it takes: five of each slot in turn, until one of them has had ten.
const STARTS: u32 = 24;

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let disk = context.first_disk()?;
    let options = || Options {
        memory: 2048,
        ..Options::default()
    };
    slots::twin(&disk, true)?;
    let mut machine = context.start_well(&[&disk], options(), Version::First)?;
    machine.power_off()?;
    for root in ["root-a", "root-b"] {
        // The block with the superblock of the filesystem: what is read first.
        disk.flip_any_bit(root, 0..4096, &mut context.chance())?;
    }

    let mut machine = context.start(&[&disk], options())?;
    machine.wait_for_line("starting recovery", machine.boot_limit() * STARTS)?;
    let [ended, of_a, of_b] = ["is corrupted", "starting slot A", "starting slot B"]
        .map(|line| machine.console().count(line));
    expect(
        of_a > 0 && of_b > 0 && ended >= of_a + of_b,
        "both slots to be tried, and each start to be ended by dm-verity",
        &format!("{of_a} starts of A, {of_b} of B, {ended} ended").into(),
    )?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let history = machine.history_with("root-corrupt", REBOOT)?;
    expect(
        history.iter().any(|event| {
            let text = event["text"].as_str().unwrap_or_default();
            text.contains("the root is damaged: block 0")
        }),
        "the history to say which block",
        &history.into(),
    )?;
    let install = format!(
        "bootctl install --slot a --now {}",
        server.url("bundle.spb")
    );
    machine.run_until_boot(&install, Duration::from_secs(600))?;
    let status = machine.wait_until_good(Version::Second.number())?;
    expect(
        status["booted"]["slot"] == "a",
        "slot A to run",
        &status["booted"],
    )
}
