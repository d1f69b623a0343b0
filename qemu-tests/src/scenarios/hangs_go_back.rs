//! an upgrade whose PID 1 freezes, then whose `bootctl serve` hangs, then which ends in emergency mode restarts by itself each time, without a hardware watchdog; then the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::defects::Defect;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

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

const DEFECTS: [Defect; 3] = [
    Defect {
        name: "everything-freezes",
        sign: "softdog: Initiating system reboot",
        // The watchdog's time, of which the initrd agent begins the first.
        no_sooner: 58,
    },
    Defect {
        name: "serve-hangs",
        sign: "reboot: Restarting system",
        // Three of the five starts at least hang before they are ready, for 40 s each.
        no_sooner: 120,
    },
    Defect {
        name: "emergency",
        sign: "the service has not started in time",
        // The overdue timer begins with systemd.
        no_sooner: 238,
    },
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &DEFECTS)?;
    machine.wait_until_back("unproven")?;
    // Who ended `bootctl serve`, and then the machine: its limit for a start, and the limit of starts.
    machine.expect_in_log(&[
        ("sternpost.service: start operation timed out", 3..=5),
        (
            "sternpost.service: Start request repeated too quickly",
            1..=1,
        ),
        ("Rebooting: unit sternpost-overdue.service", 0..=1),
    ])
}
