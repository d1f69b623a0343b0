//! a loader that hangs, because its disk stops answering, is reset by the firmware's watchdog; the machine then starts as ever

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::{LOADER_STARTS, Options};
use crate::qmp::ResetBy;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-that-hangs-is-reset",
    shows: "a loader that hangs, because its disk stops answering, is reset by the firmware's watchdog; the machine then starts as ever",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 200,
    run,
};

/// Bytes a second: for a UKI of 13 MB it takes ten seconds.
const SLOW: u32 = 1 << 20;

/// What the loader says last, before it leaves the firmware.
const STARTS: &str = "starting slot";

/// What the loader sets the firmware's watchdog to.
const WATCHDOG: Duration = Duration::from_secs(120);

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let mut machine = context.start(&[&disk], Options::default())?;
    let mut qmp = machine.qmp()?;
    // So slow from the beginning that the loader has begun to read its slot, and not more, when it is stopped.
    qmp.limit_first_disk(SLOW, 0)?;
    machine.wait_for_line(LOADER_STARTS, machine.boot_limit())?;
    qmp.limit_first_disk(1, 0)?;
    // The machine has no other watchdog than firmware's.
    qmp.wait_for_reset(ResetBy::Itself, WATCHDOG * 9 / 10, WATCHDOG * 2)?;
    // While the disk hangs still, so that it is of the start that hung.
    let said = machine.console().text();
    qmp.limit_first_disk(0, 0)?;
    drop(qmp);
    expect(
        !said.contains(STARTS),
        "a loader that hung before it had read its slot",
        &said.as_str().into(),
    )?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["watchdog"]["firmware_seconds"] == WATCHDOG.as_secs(),
        "the watchdog's time",
        &status["watchdog"],
    )
}
