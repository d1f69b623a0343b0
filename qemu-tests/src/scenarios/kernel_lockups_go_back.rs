//! an upgrade whose kernel meets an oops, then a processor that never schedules again, then interrupts that stay off: two panic, the watchdog ends the third, and the old version runs again

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::gdb::Socket;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "kernel-lockups-go-back",
    shows: "an upgrade whose kernel meets an oops, then a processor that never schedules again, then interrupts that stay off: two panic, the watchdog ends the third, and the old version runs again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 420,
    run,
};

/// What is put into the running kernel, and what it says then. Where it idles, mostly: so all processors get there.
const FAULTS: [(&[u8], Option<&str>); 3] = [
    // ud2
    (&[0x0f, 0x0b], Some("Kernel panic - not syncing: ")),
    // sti; jmp to itself
    (
        &[0xfb, 0xeb, 0xfe],
        Some("Kernel panic - not syncing: softlockup"),
    ),
    // cli; jmp to itself
    (&[0xfa, 0xeb, 0xfe], None),
];

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Undecided)?.directory())?;
    let disk = context.first_disk()?;
    let debugger = Socket::new("lockups");
    let options = Options {
        watchdog: true,
        extra: debugger.arguments(),
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    machine.install_now(&server.url("bundle.spb"))?;
    for (instructions, sign) in FAULTS {
        machine.wait_for_line("starting slot B", REBOOT)?;
        machine.wait_for_ssh(machine.boot_limit())?;
        debugger.patch_kernel(instructions)?;
        if let Some(sign) = sign {
            machine.wait_for_line(sign, Duration::from_secs(300))?;
        }
        machine.wait_for_boot(Duration::from_secs(300) + REBOOT)?;
    }
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["watchdog"]["hardware"] == "i6300esb",
        "the hardware watchdog to be named",
        &status["watchdog"],
    )
}
