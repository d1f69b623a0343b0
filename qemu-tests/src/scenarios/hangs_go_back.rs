//! an upgrade whose PID 1 freezes, then whose `bootctl serve` hangs, then which ends in emergency mode restarts by itself each time, without a hardware watchdog; then the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "hangs-go-back",
    shows: "an upgrade whose PID 1 freezes, then whose `bootctl serve` hangs, then which ends in emergency mode restarts by itself each time, without a hardware watchdog; then the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 480,
    run,
};

/// What goes wrong at each start, and what says on the console that it was noticed.
const DEFECTS: [(&str, &str); 3] = [
    ("everything-freezes", "softdog: Initiating system reboot"),
    ("serve-hangs", "unit sternpost.service failed"),
    ("emergency", "the service has not started in time"),
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.write_defects(&DEFECTS.map(|(defect, _)| defect))?;
    machine.install_now(&server.url("bundle.spb"))?;
    for (defect, sign) in DEFECTS {
        machine.wait_for_line("starting slot B", REBOOT)?;
        let line = format!("sternpost-tests: defect {defect}");
        machine.wait_for_line(&line, machine.boot_limit())?;
        machine.wait_for_line(sign, machine.boot_limit())?;
        machine.wait_for_boot(REBOOT)?;
    }
    machine.wait_for_line("starting slot A", REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["slots"]["b"]["status"] == "unproven",
        "slot B to be unproven",
        &status["slots"],
    )
}
