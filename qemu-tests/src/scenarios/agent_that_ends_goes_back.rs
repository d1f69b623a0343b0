//! an upgrade whose initrd agent is gone as soon as it starts panics the kernel, which restarts the machine three times; then the old version runs

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::REBOOT;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent-that-ends-goes-back",
    shows: "an upgrade whose initrd agent is gone as soon as it starts panics the kernel, which restarts the machine three times; then the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Ending)?.directory())?;
    // Without a watchdog: nothing but the kernel brings it back.
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_now(&server.url("bundle.spb"))?;
    for _ in 0..3 {
        machine.wait_for_line("starting slot B", REBOOT)?;
        machine.wait_for_line("Attempted to kill init", machine.boot_limit())?;
        machine.wait_for_boot(REBOOT)?;
    }
    machine.wait_until_back("unproven")?;
    Ok(())
}
