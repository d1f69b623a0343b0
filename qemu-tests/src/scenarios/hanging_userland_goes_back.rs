//! an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "hanging-userland-goes-back",
    shows: "an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 200,
    run,
};

/// More than the watchdog's own time, which the profile may make longer than the agent's minute.
const WATCHDOG: Duration = Duration::from_secs(300);

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Hanging)?.directory())?;
    let disk = context.first_disk()?;
    let options = Options {
        watchdog: true,
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options.clone(), Version::First)?;
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_for_line("starting slot B", REBOOT)?;
    machine.wait_for_line("hanging now", machine.boot_limit())?;
    machine.wait_for_boot(WATCHDOG)?;
    let mut machine = context.use_up_tries(machine, &disk, &options, WATCHDOG)?;
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["watchdog"]["hardware"] == "i6300esb",
        "the hardware watchdog to be named",
        &status["watchdog"],
    )
}
