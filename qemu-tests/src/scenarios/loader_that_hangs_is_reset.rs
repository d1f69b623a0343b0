//! a loader that hangs, because its disk stops answering, is reset by the firmware's watchdog; the machine then starts as ever

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::{LOADER_STARTS, Options};
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

/// The scenario.
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

/// What the loader sets the firmware's watchdog to.
const WATCHDOG: Duration = Duration::from_secs(120);

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let mut machine = context.start(&[&disk], Options::default())?;
    let mut qmp = machine.qmp()?;
    machine.wait_for_line(LOADER_STARTS, machine.boot_limit())?;
    qmp.limit_first_disk(1, 0)?;
    let hung = Instant::now();
    qmp.wait_for_event("RESET", WATCHDOG * 2)?;
    if hung.elapsed() < WATCHDOG / 2 {
        bail!(
            "the machine was reset after {} s already: not by the watchdog",
            hung.elapsed().as_secs()
        );
    }
    qmp.limit_first_disk(0, 0)?;
    drop(qmp);
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["watchdog"]["firmware_seconds"] == WATCHDOG.as_secs(),
        "the watchdog's time",
        &status["watchdog"],
    )
}
