//! an upgrade whose initrd agent waits for ever for its disk is restarted by the kernel's own watchdog, and on a machine that has a hardware watchdog by that; its tries used up, the old version runs

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::{Machine, Options};
use crate::qmp::ResetBy;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::REBOOT;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent-that-hangs-goes-back",
    shows: "an upgrade whose initrd agent waits for ever for its disk is restarted by the kernel's own watchdog, and on a machine that has a hardware watchdog by that; its tries used up, the old version runs",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 360,
    run,
};

/// The agent's watchdog; see initrd/src/watchdog.rs.
const WATCHDOG: Duration = Duration::from_secs(60);

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Second)?.directory())?;
    let (disk, mut machine) = context.well(Options::default())?;
    machine.install_now(&server.url("bundle.spb"))?;
    hang(&mut machine, ResetBy::Itself)?;
    // Before its loader takes the next try.
    machine.switch_off();
    let with_watchdog = Options {
        watchdog: true,
        ..Options::default()
    };
    let mut machine = context.start(&[&disk], with_watchdog)?;
    machine.wait_for_boot(machine.boot_limit())?;
    for _ in 0..2 {
        hang(&mut machine, ResetBy::Watchdog)?;
        machine.wait_for_boot(REBOOT)?;
    }
    machine.wait_until_back("unproven")?;
    Ok(())
}

/// Has the disk stop answering as soon as the agent runs, until the machine has been reset, which is to be `by` this. The
/// agent opens the watchdog first, and then asks for the disk.
fn hang(machine: &mut Machine<'_>, by: ResetBy) -> Result<()> {
    machine.wait_for_line("starting slot B", REBOOT)?;
    let mut qmp = machine.qmp()?;
    machine.wait_for_line("sternpost: initrd agent", machine.boot_limit())?;
    qmp.limit_first_disk(1, 0)?;
    // The agent gives signs of life only where it may have to wait for long; the disk is there.
    qmp.wait_for_reset(by, WATCHDOG * 3 / 4, WATCHDOG * 4)?;
    qmp.limit_first_disk(0, 0)?;
    if by == ResetBy::Itself {
        // By the kernel's own watchdog, not by the agent, which gives up at some time as well.
        machine.wait_for_line("softdog: Initiating system reboot", WATCHDOG / 4)?;
    }
    Ok(())
}
