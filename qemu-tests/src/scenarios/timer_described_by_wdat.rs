//! a timer that ACPI's WDAT describes is armed by the loader once a system has driven it, is taken over by the initrd, and resets a kernel that hangs before that

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "timer-described-by-wdat",
    shows: "a timer that ACPI's WDAT describes is armed by the loader once a system has driven it, is taken over by the initrd, and resets a kernel that hangs before that",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 600,
    run,
};

/// Where OVMF puts the TCO timer of QEMU's q35 machine.
const TCO: u64 = 0x660;

/// Where OVMF puts the chip set's "general control and status".
const GCS: u64 = 0xfed1_f410;

/// Action, instruction, place, value, mask: what firmware of such machines says of the timer. Action 17 is what lets it
/// reset the machine; QEMU's does not begin with that, and OVMF leaves it so.
const INSTRUCTIONS: [(u8, u8, Place, u32, u32); 8] = [
    (1, 2, Place::Port(0x00), 1, 1),
    (5, 1, Place::Port(0x12), 0, 0x3ff),
    (6, 0x83, Place::Port(0x12), 0, 0x3ff),
    (8, 0, Place::Port(0x08), 0, 0x800),
    (9, 0x82, Place::Port(0x08), 0, 0x800),
    (10, 0, Place::Port(0x08), 0x800, 0x800),
    (11, 0x82, Place::Port(0x08), 0x800, 0x800),
    (17, 0x82, Place::Memory(GCS), 0, 0x20),
];

/// What the loader arms it for; it resets the machine at the second end of that.
const TIMER: Duration = Duration::from_secs(180);

#[derive(Clone, Copy)]
enum Place {
    /// A register of the timer, 16 bits.
    Port(u64),
    /// An address, 32 bits.
    Memory(u64),
}

impl Place {
    /// As ACPI's generic address: space, bits, offset, width of an access, address.
    fn generic_address(self) -> Vec<u8> {
        let (kind, address) = match self {
            Place::Port(register) => ([1, 16, 0, 2], TCO + register),
            Place::Memory(address) => ([0, 32, 0, 3], address),
        };
        [&kind[..], &address.to_le_bytes()].concat()
    }
}

fn run(context: &Context) -> Result<()> {
    let table = context.file("wdat.bin");
    std::fs::write(&table, wdat()).context("cannot write the table")?;
    let server = Server::start(context.image(Version::Stuck)?.directory())?;
    let disk = context.first_disk()?;
    let options = Options {
        extra: vec![
            "-acpitable".into(),
            format!(
                "sig=WDAT,rev=1,oem_id=TESTED,oem_table_id=TESTED,data={}",
                table.display()
            ),
            // Without it, the strap of QEMU's machine keeps the timer from resetting it.
            "-global".into(),
            "ICH9-LPC.noreboot=off".into(),
        ],
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    let status = machine.status()?;
    expect(
        status["watchdog"]["hardware"] == "wdat_wdt" && status["watchdog"]["timer"].is_null(),
        "a watchdog that nobody had armed",
        &status["watchdog"],
    )?;
    // The connection ends with the machine; what ssh says of that does not matter.
    let _ = machine.run("systemctl reboot");
    machine.wait_for_line("timer wdat_wdt armed, 180 s", REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["watchdog"]["hardware"] == "wdat_wdt"
            && status["watchdog"]["timer"]["driver"] == "wdat_wdt",
        "the timer to be taken over",
        &status["watchdog"],
    )?;
    // A kernel that hangs before it has drivers: what resets the machine is what the loader has set, and at the
    // second end of its time, as this timer does it.
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_for_line("timer wdat_wdt armed, 180 s", REBOOT)?;
    machine.wait_for_line("starting slot B", REBOOT)?;
    machine.wait_for_watchdog(TIMER * 3 / 2, TIMER * 2 + Duration::from_secs(120))
}

/// The table after its header, which QEMU writes.
fn wdat() -> Vec<u8> {
    let mut table = 32u32.to_le_bytes().to_vec();
    // No PCI function.
    table.extend([0xff, 0, 0xff, 0xff, 0xff, 0, 0, 0]);
    // Milliseconds of a count, most and fewest counts.
    for value in [600u32, 0x3ff, 4] {
        table.extend(value.to_le_bytes());
    }
    // Flags: enabled.
    table.extend([1, 0, 0, 0]);
    table.extend((INSTRUCTIONS.len() as u32).to_le_bytes());
    for (action, instruction, place, value, mask) in INSTRUCTIONS {
        table.extend([action, instruction, 0, 0]);
        table.extend(place.generic_address());
        table.extend(value.to_le_bytes());
        table.extend(mask.to_le_bytes());
    }
    table
}
