//! an error that the kernel finds in state while the machine runs is said, restarts a machine that has been up for long by itself, and is repaired by that start

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-with-an-error",
    shows: "an error that the kernel finds in state while the machine runs is said, restarts a machine that has been up for long by itself, and is repaired by that start",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 180,
    run,
};

/// The kernel's own way to have an error in a filesystem.
const ERROR: &str =
    "sync; for knob in /sys/fs/ext4/*/trigger_fs_error; do echo tested > $knob; done";

/// The service looks every two minutes.
const RESTART: Duration = Duration::from_secs(300);

/// As if it had been up for a day.
const UP_FOR_LONG: &str = "echo 86400.00 1.00 > /run/uptime; mount --bind /run/uptime /proc/uptime";

fn run(context: &Context) -> Result<()> {
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.run("echo kept > /var/lib/witness")?;
    let status = machine.status()?;
    expect(
        status["state"]["errors"] == 0,
        "a state without an error",
        &status["state"],
    )?;
    machine.run(ERROR)?;
    let status = machine.status()?;
    expect(
        status["state"]["errors"]
            .as_u64()
            .is_some_and(|errors| errors > 0)
            && status["problems"]
                .to_string()
                .contains("nothing is kept any more"),
        "a word about it",
        &status["problems"],
    )?;
    machine.run(UP_FOR_LONG)?;
    machine.wait_for_boot(RESTART)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["state"]["errors"] == 0
            && status["state"]["check"]["status"] == "repaired"
            && machine.run("cat /var/lib/witness")?.trim() == "kept",
        "a state that was repaired, with what was on it",
        &status["state"],
    )
}
