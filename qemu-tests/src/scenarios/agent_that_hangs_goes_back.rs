//! an upgrade whose initrd agent waits for ever for its disk is restarted by the kernel's own watchdog, and on a machine that has a hardware watchdog by that; its tries used up, the old version runs

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::{Machine, Options};
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::REBOOT;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent-that-hangs-goes-back",
    shows: "an upgrade whose initrd agent waits for ever for its disk is restarted by the kernel's own watchdog, and on a machine that has a hardware watchdog by that; its tries used up, the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 360,
    run,
};

/// The agent's watchdog; see initrd/src/watchdog.rs.
const WATCHDOG: Duration = Duration::from_secs(60);

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.install_now(&server.url("bundle.spb"))?;
    hang(&mut machine)?;
    // Before its loader takes the next try.
    machine.cut_power();
    let with_watchdog = Options {
        watchdog: true,
        ..Options::default()
    };
    let mut machine = context.start(&[&disk], with_watchdog)?;
    machine.wait_for_boot(machine.boot_limit())?;
    for _ in 0..2 {
        hang(&mut machine)?;
        machine.wait_for_boot(REBOOT)?;
    }
    machine.wait_until_back("unproven")?;
    Ok(())
}

/// Has the disk stop answering as soon as the agent runs, until the machine has been reset. The agent opens the watchdog
/// first, and then asks for the disk.
fn hang(machine: &mut Machine<'_>) -> Result<()> {
    machine.wait_for_line("starting slot B", REBOOT)?;
    let mut qmp = machine.qmp()?;
    machine.wait_for_line("sternpost: initrd agent", machine.boot_limit())?;
    qmp.limit_first_disk(1, 0)?;
    let hung = Instant::now();
    qmp.wait_for_event("RESET", WATCHDOG * 4)?;
    let after = hung.elapsed();
    qmp.limit_first_disk(0, 0)?;
    if after < WATCHDOG / 2 {
        bail!("the machine was reset after {} s already", after.as_secs());
    }
    Ok(())
}
