//! the roots of both slots rot: dm-verity ends start after start, recovery comes up, says which root is damaged, and is told over SSH to install what works

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "both-roots-rot-ends-in-recovery",
    shows: "the roots of both slots rot: dm-verity ends start after start, recovery comes up, says which root is damaged, and is told over SSH to install what works",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
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
    let text = machine.console().text();
    let starts: Vec<&str> = text.split("starting slot ").skip(1).collect();
    // An emulated processor may stand still before there is a root: then the watchdog ends that start.
    let came_to_root = |start: &&&str| start.contains("initrd agent");
    expect(
        ["A", "B"]
            .iter()
            .all(|slot| starts.iter().any(|start| start.starts_with(slot)))
            && starts.iter().filter(came_to_root).count() + 1 >= starts.len()
            && starts
                .iter()
                .filter(came_to_root)
                .all(|start| start.contains("is corrupted")),
        "both slots to be tried, and each start that came to its root to be ended by dm-verity",
        &text.as_str().into(),
    )?;
    machine.wait_for_ssh(machine.boot_limit())?;
    // Recovery reads one root after the other.
    for slot in ["a", "b"] {
        let what = format!("word on the root of slot {slot}");
        machine.history_where(&what, REBOOT, |event| {
            let text = event["text"].as_str().unwrap_or_default();
            event["slot"] == slot && text.contains("the root is damaged: block 0")
        })?;
    }
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
