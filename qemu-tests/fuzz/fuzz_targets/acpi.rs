//! What the loader reads of ACPI to find a timer that it can arm: docs/formats/hand-over.md.
//!
//! - what comes out of a table is a time that is long enough, and writes to memory or ports, as many as the table has
//!   instructions and no more;
//! - a root table leads to no more tables than it has bytes for.
#![no_main]

use arbitrary::Arbitrary;
use hardware_timer::{Place, Register, Registers, SECONDS_MIN, Timer, acpi, gtdt, wdat};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Root(&'a [u8]),
    Wdat(Wdat, u16),
    Gtdt(&'a [u8], Option<[u64; 2]>, u32),
    /// Any bytes, to all of them.
    Any(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Wdat {
    period: u16,
    highest: u32,
    lowest: u8,
    enabled: bool,
    instructions: Vec<Instruction>,
    more: u8,
}

#[derive(Arbitrary, Debug)]
struct Instruction {
    action: u8,
    operation: u8,
    in_ports: bool,
    width: u8,
    shift: u8,
    access: u8,
    at: u16,
    value: u32,
    mask: u32,
}

impl Wdat {
    fn table(&self) -> Vec<u8> {
        let mut body = [0xff; 32];
        let numbers = [
            (12, u32::from(self.period)),
            (16, self.highest),
            (20, self.lowest.into()),
            (24, self.enabled.into()),
            (
                28,
                self.instructions.len() as u32 + u32::from(self.more & 1),
            ),
        ];
        for (at, number) in numbers {
            body[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let mut body = body.to_vec();
        for it in self.instructions.iter().take(40) {
            // Of the actions that there are, mostly.
            let action = [1, 6, 8, 9, 11, 17, it.action][usize::from(it.action % 7)];
            body.extend([action, it.operation & 0x83, 0, 0]);
            body.extend([u8::from(it.in_ports), it.width, it.shift, it.access & 3]);
            body.extend(u64::from(it.at).to_le_bytes());
            body.extend(it.value.to_le_bytes());
            body.extend(it.mask.to_le_bytes());
        }
        sealed(&wdat::SIGNATURE, &body)
    }
}

/// A table: header, `body`, length and checksum.
fn sealed(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; acpi::HEADER];
    table[..4].copy_from_slice(signature);
    table.extend(body);
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// Registers that hold nothing, and count what they are asked for.
#[derive(Default)]
struct Nothing {
    writes: usize,
}

impl Registers for Nothing {
    fn read(&mut self, register: Register) -> Option<u32> {
        assert!(!matches!(register.place, Place::Config(_)));
        Some(0)
    }

    fn write(&mut self, register: Register, _: u32) -> bool {
        assert!(!matches!(register.place, Place::Config(_)));
        self.writes += 1;
        true
    }
}

fn is_sound(timer: &Timer, most: usize) {
    assert!(timer.seconds >= SECONDS_MIN);
    let mut registers = Nothing::default();
    let _ = timer.arm(&mut registers);
    assert!((1..=most).contains(&registers.writes));
}

fuzz_target!(|input: Input<'_>| match input {
    Input::Root(body) => {
        let tables = acpi::tables(&sealed(b"XSDT", body)).expect("it is whole");
        assert!(tables.len() <= body.len() / 8);
    }
    Input::Wdat(described, seconds) => {
        if let Ok(timer) = wdat::timer(&described.table(), seconds.into()) {
            // Stopped again if it does not run.
            is_sound(&timer, described.instructions.len());
        }
    }
    Input::Gtdt(body, timer, frequency) => {
        let mut body = body.to_vec();
        if let Some([control, flags]) = timer {
            // One timer after the table's own fields.
            body.resize(60, 0);
            body[52..56].copy_from_slice(&1_u32.to_le_bytes());
            body[56..60].copy_from_slice(&96_u32.to_le_bytes());
            body.extend([1, 28, 0, 0]);
            body.extend([0; 8]);
            body.extend(control.to_le_bytes());
            body.extend([0; 4]);
            body.extend((flags as u32).to_le_bytes());
        }
        let table = sealed(&gtdt::SIGNATURE, &body);
        if let Ok(found) = gtdt::Watchdog::find(&table) {
            for version in [0, 1 << 16] {
                if let Ok(timer) = found.timer(version, frequency.into(), 180) {
                    is_sound(&timer, 4);
                }
            }
        }
    }
    Input::Any(bytes) => {
        let _ = acpi::root_table(bytes);
        let _ = acpi::length(bytes);
        let _ = acpi::tables(bytes);
        let _ = wdat::timer(bytes, 180);
        let _ = gtdt::Watchdog::find(bytes);
    }
});
