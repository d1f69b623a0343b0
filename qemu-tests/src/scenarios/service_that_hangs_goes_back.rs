//! an upgrade whose `bootctl serve` hangs each time that it has become ready is ended by systemd, and restarts the machine in the end; its tries used up, the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "service-that-hangs-goes-back",
    shows: "an upgrade whose `bootctl serve` hangs each time that it has become ready is ended by systemd, and restarts the machine in the end; its tries used up, the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 450,
    run,
};

const DEFECT: (&str, &str) = ("ready-serve-hangs", "reboot: Restarting system");

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &[DEFECT; 3])?;
    machine.wait_until_back("unproven")?;
    Ok(())
}
