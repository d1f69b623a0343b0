//! an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hanging-userland-goes-back",
    shows: "an upgrade in which nothing runs any more after some seconds is reset by the hardware watchdog; its tries used up, the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: true,
    seconds: 150,
    run,
};

/// The image's watchdog has 40 s from the last sign of life, which comes every 20 s.
const LEAST: Duration = Duration::from_secs(12);
const MOST: Duration = Duration::from_secs(300);

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Hanging)?.directory())?;
    let options = Options {
        watchdog: true,
        ..Options::recorded()
    };
    let (disk, mut machine) = context.well(options.clone())?;
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_for_line("starting slot B", REBOOT)?;
    machine.wait_for_line("hanging now", machine.boot_limit())?;
    machine.wait_for_watchdog(LEAST, MOST)?;
    if context.is_hurried() {
        // The other tries begin as the first did, and would end so: their power is cut instead.
        let mut chance = context.chance();
        for left in [1, 0] {
            machine.wait_for_line("starting slot B", REBOOT)?;
            machine.lose_power(&disk, &mut chance)?;
            let tries = slots::record(&disk)?.b.tries;
            expect(tries == left, &format!("{left} tries left"), &tries.into())?;
            machine = context.start_recorded(&disk, options.clone())?;
            machine.wait_for_boot(machine.boot_limit())?;
        }
    } else {
        machine.use_up_tries(LEAST, MOST)?;
    }
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["watchdog"]["hardware"] == "i6300esb",
        "the hardware watchdog to be named",
        &status["watchdog"],
    )
}
