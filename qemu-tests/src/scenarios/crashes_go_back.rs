//! an upgrade whose kernel panics, then whose PID 1 crashes, then whose `bootctl serve` crashes for ever: each is a try, and the old version runs again

use anyhow::Result;

use crate::artefacts::Version;
use crate::defects::Defect;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;

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

const DEFECTS: [Defect; 3] = [
    Defect {
        name: "kernel-panics",
        sign: "Kernel panic - not syncing: sysrq triggered crash",
        no_sooner: 0,
    },
    Defect {
        name: "pid-1-crashes",
        sign: "reboot: Restarting system",
        // systemd waits for that long before it restarts.
        no_sooner: 10,
    },
    Defect {
        name: "serve-crashes",
        sign: "reboot: Restarting system",
        // Between five starts there are four pauses of 2 s.
        no_sooner: 8,
    },
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    // Without a watchdog: nothing but the kernel and systemd brings it back.
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &DEFECTS)?;
    machine.wait_until_back("unproven")?;
    // Five crashes of the service, the last of which ended the machine. What PID 1 says of its own is lost with it: the
    // reset writes nothing back, so that there its time has to do.
    machine.expect_in_log(&[
        ("status=11/SEGV", 5..=5),
        (
            "sternpost.service: Start request repeated too quickly",
            1..=1,
        ),
    ])
}
