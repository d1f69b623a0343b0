//! an upgrade whose kernel panics, then whose PID 1 crashes, then whose `bootctl serve` crashes for ever: each is a try, and the old version runs again

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "crashes-go-back",
    shows: "an upgrade whose kernel panics, then whose PID 1 crashes, then whose `bootctl serve` crashes for ever: each is a try, and the old version runs again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 300,
    run,
};

/// What goes wrong at each start, and what says on the console that it was noticed.
const DEFECTS: [(&str, &str); 3] = [
    ("kernel-panics", "Kernel panic"),
    ("pid-1-crashes", "reboot: Restarting system"),
    ("serve-crashes", "reboot: Restarting system"),
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    // Without a watchdog: nothing but the kernel and systemd brings it back.
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &DEFECTS)?;
    machine.wait_until_back("unproven")?;
    Ok(())
}
