//! a kernel that hangs before its initramfs is reset by the timer that the loader armed, and the old version runs again

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kernel-that-hangs-goes-back",
    shows: "a kernel that hangs before its initramfs is reset by the timer that the loader armed, and the old version runs again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 700,
    run,
};

/// The loader arms the timer for 180 s.
const LEAST: Duration = Duration::from_secs(150);
const MOST: Duration = Duration::from_secs(300);

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Stuck)?.directory())?;
    let options = Options {
        watchdog: true,
        ..Options::default()
    };
    let (_disk, mut machine) = context.well(options)?;
    let status = machine.status()?;
    expect(
        status["watchdog"]["timer"].is_null() && status["watchdog"]["stretches"][1]["by"].is_null(),
        "nothing armed on a machine that has not yet shown its watchdog",
        &status["watchdog"],
    )?;
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_for_line("timer i6300esb armed, 180 s", REBOOT)?;
    machine.wait_for_line("starting slot B", REBOOT)?;
    machine.wait_for_watchdog(LEAST, MOST)?;
    machine.use_up_tries(LEAST, MOST)?;
    machine.wait_for_line("timer i6300esb armed, 180 s", REBOOT)?;
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["watchdog"]["timer"]["driver"] == "i6300esb"
            && status["watchdog"]["hardware"] == "i6300esb"
            && status["watchdog"]["stretches"]
                .as_array()
                .is_some_and(|all| all.iter().all(|it| it["by"].is_string())),
        "every stretch to be covered",
        &status["watchdog"],
    )
}
