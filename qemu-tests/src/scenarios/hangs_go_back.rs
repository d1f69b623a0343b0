//! an upgrade whose PID 1 freezes, then whose `bootctl serve` hangs, then which ends in emergency mode restarts by itself each time, without a hardware watchdog; then the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "hangs-go-back",
    shows: "an upgrade whose PID 1 freezes, then whose `bootctl serve` hangs, then which ends in emergency mode restarts by itself each time, without a hardware watchdog; then the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 600,
    run,
};

/// What goes wrong at each start, and what says on the console that it was noticed.
const DEFECTS: [(&str, &str); 3] = [
    ("everything-freezes", "softdog: Initiating system reboot"),
    ("serve-hangs", "reboot: Restarting system"),
    ("emergency", "the service has not started in time"),
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &DEFECTS)?;
    machine.wait_until_back("unproven")?;
    Ok(())
}
