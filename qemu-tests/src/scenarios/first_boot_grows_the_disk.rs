//! a new disk boots, is grown to its full size, is marked good, and keeps what is written; the kernel finds no fault with the table, and of the disk's cache says what is so

use anyhow::{Result, bail};
use serde_json::Value;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

/// The machine's disk: larger than the image, as disks are.
const DISK: u64 = 6 << 30;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "first-boot-grows-the-disk",
    shows: "a new disk boots, is grown to its full size, is marked good, and keeps what is written; the kernel finds no fault with the table, and of the disk's cache says what is so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 90,
    run,
};

/// What the kernel says of a partition table that it reads without being content.
const COMPLAINTS: &str = "dmesg | grep -w GPT || true";

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    disk.grow(DISK)?;
    let (_, shipped) = disk.bounds("state")?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["booted"]["first_boot"] == true,
        "a first boot",
        &status["booted"],
    )?;
    let size = status["state"]["size"].as_u64().unwrap_or(0);
    expect(
        size > DISK / 2,
        "a state filesystem of most of the disk",
        &status["state"],
    )?;
    expect_cache(&status, "write back")?;
    // Linux compares both copies of the table and says what it does not like: a backup that is not at the end, at first.
    if machine.run(COMPLAINTS)?.is_empty() {
        bail!("the kernel did not notice that the disk is larger than its partition table");
    }
    let id = machine.leave_mark()?;
    machine.power_off()?;

    let (_, grown) = disk.bounds("state")?;
    if grown <= shipped {
        bail!("the partition state has {grown} bytes, it was shipped with {shipped}");
    }
    // A disk that says of itself that it has no cache.
    let no_cache = Options {
        extra: ["-global", "virtio-blk-device.write-cache=off"]
            .map(str::to_owned)
            .into(),
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], no_cache, Version::First)?;
    let status = machine.status()?;
    expect_cache(&status, "write through")?;
    let complaints = machine.run(COMPLAINTS)?;
    if !complaints.is_empty() {
        bail!("the kernel does not like the table that the agent wrote:\n{complaints}");
    }
    expect(
        status["booted"]["first_boot"] == false,
        "no first boot",
        &status["booted"],
    )?;
    let history = machine.history()?;
    expect(
        history
            .iter()
            .all(|event| event["kind"] != "unclean-shutdown"),
        "the first run to have ended in an orderly way",
        &history.into(),
    )?;
    machine.expect_mark(&id)
}

fn expect_cache(status: &Value, cache: &str) -> Result<()> {
    let disk = &status["disk"];
    expect(
        disk["write_cache"] == cache,
        &format!("a disk whose cache is {cache:?}"),
        disk,
    )
}
