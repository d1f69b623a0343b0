//! an upgrade whose kernel meets an oops, then a processor that never schedules again, then interrupts that stay off: panics and the watchdog end them, and the old version runs again

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::artefacts::Version;
use crate::gdb::Socket;
use crate::machine::Options;
use crate::qmp::ResetBy;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kernel-lockups-go-back",
    shows: "an upgrade whose kernel meets an oops, then a processor that never schedules again, then interrupts that stay off: panics and the watchdog end them, and the old version runs again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 420,
    run,
};

/// What a kernel says that panics.
const PANIC: &str = "Kernel panic - not syncing: ";

/// How long each may take to be ended.
const LIMIT: Duration = Duration::from_secs(300);

/// Its own time; systemd gives it a sign of life every half of that.
const WATCHDOG: Duration = Duration::from_secs(60);

/// What is put into the running kernel, and what is to end it. Where it idles, mostly: so all processors get there.
const FAULTS: [(&[u8], Ended); 3] = [
    // ud2
    (&[0x0f, 0x0b], Ended::Panic("Fatal exception")),
    // sti; jmp to itself
    (
        &[0xfb, 0xeb, 0xfe],
        Ended::LatePanic("softlockup: hung tasks"),
    ),
    // cli; jmp to itself
    (&[0xfa, 0xeb, 0xfe], Ended::LastResort),
];

enum Ended {
    /// The kernel says that it panics because of this, and resets the machine.
    Panic(&'static str),
    /// The same, so late that the watchdog may come before its reset: until then nothing gives it a sign of life.
    LatePanic(&'static str),
    /// The hardware watchdog; unless another processor waits for what the hung one holds, and panics for that.
    LastResort,
}

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
    let mut last = String::new();
    for (instructions, ended) in FAULTS {
        machine.wait_for_line("starting slot B", REBOOT)?;
        machine.wait_for_ssh(machine.boot_limit())?;
        // Before it happens: an event that nobody is there for is lost.
        let mut qmp = machine.qmp()?;
        debugger.patch_kernel(instructions)?;
        match ended {
            Ended::Panic(why) => {
                machine.wait_for_line(&format!("{PANIC}{why}"), LIMIT)?;
                qmp.wait_for_reset(ResetBy::Itself, Duration::ZERO, REBOOT)?;
            }
            Ended::LatePanic(why) => {
                machine.wait_for_line(&format!("{PANIC}{why}"), LIMIT)?;
                qmp.wait_for_event("RESET", REBOOT)?;
            }
            Ended::LastResort => {
                let began = Instant::now();
                last = qmp.wait_for_first(&["WATCHDOG", "RESET"], LIMIT)?;
                let after = began.elapsed();
                expect(
                    after >= WATCHDOG / 3,
                    "no reset so soon",
                    &after.as_secs().into(),
                )?;
            }
        }
        drop(qmp);
        machine.wait_for_boot(REBOOT)?;
    }
    let said = machine.console().text();
    let panics = said.lines().filter(|line| line.contains(PANIC)).count();
    let said = format!("{panics} panics, and last {last}");
    let ended = panics == 3 || panics == 2 && last == "WATCHDOG";
    expect(ended, "two panics and a watchdog, or three", &said.into())?;
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["watchdog"]["hardware"] == "i6300esb",
        "the hardware watchdog to be named",
        &status["watchdog"],
    )
}
