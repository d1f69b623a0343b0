//! an upgrade whose `bootctl serve` hangs each time that it has become ready is ended by systemd, and restarts the machine in the end; its tries used up, the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::defects::Defect;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

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

const DEFECT: Defect = Defect {
    name: "ready-serve-hangs",
    sign: "reboot: Restarting system",
    // Five times without a sign of life for 10 s.
    no_sooner: 50,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &[DEFECT; 3])?;
    machine.wait_until_back("unproven")?;
    // Five at each start, but where a busy host makes one of the service's own starts too slow.
    machine.expect_in_log(&[
        ("sternpost.service: Watchdog timeout (limit 10s)", 12..=15),
        (
            "sternpost.service: Start request repeated too quickly",
            3..=3,
        ),
    ])
}
