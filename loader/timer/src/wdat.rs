//! ACPI WDAT: a timer described by what to write where for each action.
//!
//! Source: "Hardware Watchdog Timers Design Specification" (Microsoft, 2006), and Linux's `acpi_watchdog.c` and
//! `wdat_wdt.c` for what is used in practice.
//!
//! ```text
//! 0   ACPI header           52  highest count     each instruction:   0  action
//! 36  header's length       56  lowest count                          1  instruction, bit 7: keep other bits
//! 40  PCI segment, 2 bytes  60  flags                                 4  generic address, 12 bytes
//! 42  bus, device, function 64  instructions                          16 value
//! 48  ms of one count       68  the first                             20 mask
//! ```

use alloc::vec::Vec;

use super::acpi::{self, u8_at, u16_at, u32_at, u64_at};
use super::{Register, SECONDS_MIN, Sign, Timer, Unusable, Width, Write};

/// The table's signature.
pub const SIGNATURE: [u8; 4] = *b"WDAT";
/// Linux's driver.
pub const DRIVER: &str = "wdat_wdt";

const INSTRUCTIONS: usize = 68;
const INSTRUCTION: usize = 24;
/// Flag: the firmware has not switched the timer off.
const ENABLED: u8 = 1;

const RESTART: u8 = 1;
const SET_COUNTDOWN: u8 = 6;
const GET_RUNNING: u8 = 8;
const SET_RUNNING: u8 = 9;
const SET_STOPPED: u8 = 11;
const SET_REBOOT: u8 = 17;

const READ_VALUE: u8 = 0;
const READ_COUNTDOWN: u8 = 1;
const WRITE_VALUE: u8 = 2;
const WRITE_COUNTDOWN: u8 = 3;
const KEEP: u8 = 0x80;

/// One instruction.
#[derive(Clone, Copy)]
struct Instruction {
    action: u8,
    operation: u8,
    keeps: bool,
    register: Register,
    shift: u32,
    value: u32,
    mask: u32,
}

impl Instruction {
    fn parse(bytes: &[u8]) -> Result<Instruction, Unusable> {
        let at = u64_at(bytes, 8)?;
        let space = u8_at(bytes, 4)?;
        // Linux keeps away from these, because its driver of the clock has them.
        if space == 1 && (0x70..=0x73).contains(&at) {
            return Err(Unusable::NotByLinux("it is reached through the clock"));
        }
        let shift = u32::from(u8_at(bytes, 6)?);
        if shift >= u32::BITS {
            return Err(Unusable::Nonsense("a bit beyond a register"));
        }
        Ok(Instruction {
            action: u8_at(bytes, 0)?,
            operation: u8_at(bytes, 1)? & !KEEP,
            keeps: u8_at(bytes, 1)? & KEEP != 0,
            register: Register::new(
                acpi::place(space, at)?,
                Width::from_acpi(u8_at(bytes, 7)?)
                    .ok_or(Unusable::NotByLinux("a register's width"))?,
            ),
            shift,
            value: u32_at(bytes, 16)?,
            mask: u32_at(bytes, 20)?,
        })
    }

    /// As a write, where it is one; `count` is what a countdown is set to.
    fn write(&self, count: u32) -> Result<Write, Unusable> {
        let value = match self.operation {
            WRITE_VALUE => self.value & self.mask,
            WRITE_COUNTDOWN if count & self.mask == count => count,
            WRITE_COUNTDOWN => return Err(Unusable::Nonsense("a count that does not fit")),
            READ_VALUE | READ_COUNTDOWN => {
                return Err(Unusable::Nonsense(
                    "an action that reads instead of writing",
                ));
            }
            _ => return Err(Unusable::Nonsense("an unknown instruction")),
        };
        Ok(Write {
            register: self.register,
            keep: if self.keeps {
                !(self.mask << self.shift)
            } else {
                0
            },
            value: value << self.shift,
        })
    }
}

/// How the timer that `table` describes is set to `seconds`, or as long as it can be.
pub fn timer(table: &[u8], seconds: u64) -> Result<Timer, Unusable> {
    acpi::check(table, SIGNATURE)?;
    if u8_at(table, 60)? & ENABLED == 0 {
        return Err(Unusable::Off);
    }
    let function = [u8_at(table, 42)?, u8_at(table, 43)?, u8_at(table, 44)?];
    if u16_at(table, 40)? != 0xff || function != [0xff; 3] {
        return Err(Unusable::NotByLinux("it is a PCI function"));
    }
    let (count, seconds) = count(table, seconds)?;
    let instructions = instructions(table)?;
    let of = |action| instructions.iter().filter(move |it| it.action == action);
    let writes = |action| {
        of(action)
            .map(|it| it.write(count))
            .collect::<Result<Vec<Write>, Unusable>>()
    };
    let mut arm = Vec::new();
    // The first is there only where firmware leaves the choice.
    for (action, required) in [
        (SET_REBOOT, false),
        (SET_COUNTDOWN, true),
        (SET_RUNNING, true),
        (RESTART, true),
    ] {
        let writes = writes(action)?;
        if required && writes.is_empty() {
            return Err(Unusable::Nonsense("an action is missing"));
        }
        arm.extend(writes);
    }
    let running = of(GET_RUNNING)
        .filter(|it| it.operation == READ_VALUE)
        .map(|it| Sign {
            register: it.register,
            mask: it.mask << it.shift,
            value: (it.value & it.mask) << it.shift,
        })
        .next_back();
    Ok(Timer {
        driver: DRIVER,
        seconds,
        arm,
        stop: writes(SET_STOPPED)?,
        running,
    })
}

/// The count for `seconds`, and the seconds that it is.
fn count(table: &[u8], seconds: u64) -> Result<(u32, u64), Unusable> {
    let (period, highest, lowest) = (u32_at(table, 48)?, u32_at(table, 52)?, u32_at(table, 56)?);
    if period == 0 || lowest > highest {
        return Err(Unusable::Nonsense("its range"));
    }
    let wanted = seconds
        .saturating_mul(1000)
        .checked_div(u64::from(period))
        .unwrap_or(0);
    let count = u32::try_from(wanted)
        .unwrap_or(u32::MAX)
        .clamp(lowest, highest);
    let seconds = u64::from(count).saturating_mul(u64::from(period)) / 1000;
    if seconds < SECONDS_MIN {
        return Err(Unusable::TooShort(seconds));
    }
    Ok((count, seconds))
}

fn instructions(table: &[u8]) -> Result<Vec<Instruction>, Unusable> {
    let count = usize::try_from(u32_at(table, 64)?).map_err(|_| Unusable::Truncated)?;
    let bytes = table.get(INSTRUCTIONS..).ok_or(Unusable::Truncated)?;
    if count > bytes.len() / INSTRUCTION {
        return Err(Unusable::Truncated);
    }
    bytes
        .chunks_exact(INSTRUCTION)
        .take(count)
        .map(Instruction::parse)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::acpi::made;
    use super::super::simulated::Simulated;
    use super::super::{NotArmed, Place};
    use super::*;

    /// Intel's TCO timer at port 0x660, as firmware of such machines describes it: one count is 600 ms, ten bits.
    const TCO: [[u32; 6]; 7] = [
        // action, instruction, port, width, value, mask
        [1, 2, 0x660, 2, 1, 1],
        [5, 1, 0x672, 2, 0, 0x3ff],
        [6, 0x83, 0x672, 2, 0, 0x3ff],
        [8, 0, 0x668, 2, 0, 0x800],
        [9, 0x82, 0x668, 2, 0, 0x800],
        [10, 0, 0x668, 2, 0x800, 0x800],
        [11, 0x82, 0x668, 2, 0x800, 0x800],
    ];

    fn table(instructions: &[[u32; 6]]) -> Vec<u8> {
        let mut table = made::header(&SIGNATURE);
        table.extend(32u32.to_le_bytes());
        table.extend([0xff, 0, 0xff, 0xff, 0xff, 0, 0, 0]);
        for value in [600u32, 0x3ff, 4] {
            table.extend(value.to_le_bytes());
        }
        table.extend([1, 0, 0, 0]);
        table.extend(u32::try_from(instructions.len()).unwrap().to_le_bytes());
        for [action, instruction, port, width, value, mask] in instructions {
            let byte = |n: &u32| u8::try_from(*n).unwrap();
            table.extend([byte(action), byte(instruction), 0, 0, 1, 16, 0, byte(width)]);
            table.extend(u64::from(*port).to_le_bytes());
            table.extend(value.to_le_bytes());
            table.extend(mask.to_le_bytes());
        }
        made::sealed(table)
    }

    /// The table with `byte` changed at `at`.
    fn changed(at: usize, byte: u8) -> Vec<u8> {
        let mut table = table(&TCO);
        table[at] = byte;
        made::sealed(table)
    }

    #[test]
    fn the_timer_is_set_started_and_stopped() {
        let timer = timer(&table(&TCO), 180).unwrap();
        assert_eq!((timer.driver, timer.seconds), ("wdat_wdt", 180));
        assert!(timer.is_direct());
        let mut registers = Simulated::default();
        registers.values.insert(Place::Io(0x672), 0x8004);
        registers.values.insert(Place::Io(0x668), 0x0801);
        timer.arm(&mut registers).unwrap();
        assert_eq!(
            registers.writes,
            [
                (Place::Io(0x672), 0x8000 | 300),
                (Place::Io(0x668), 0x0001),
                (Place::Io(0x660), 1)
            ],
            "bits outside the masks stay"
        );
        timer.stop(&mut registers);
        assert_eq!(registers.values[&Place::Io(0x668)], 0x0801);
        registers.stuck = Some(Place::Io(0x668));
        assert_eq!(timer.arm(&mut registers), Err(NotArmed::NotRunning));
    }

    #[test]
    fn where_resetting_is_to_be_allowed_it_is_before_the_timer_starts() {
        let mut instructions = TCO.to_vec();
        // Bit 5 of a register says that it may not.
        instructions.push([SET_REBOOT.into(), 0x82, 0x610, 3, 0, 0x20]);
        let timer = timer(&table(&instructions), 180).unwrap();
        let mut registers = Simulated::default();
        registers.values.insert(Place::Io(0x610), 0x2a);
        timer.arm(&mut registers).unwrap();
        assert_eq!(registers.writes.first(), Some(&(Place::Io(0x610), 0x0a)));
    }

    #[test]
    fn as_long_as_it_can_be_but_not_too_short() {
        assert_eq!(timer(&table(&TCO), 100_000).unwrap().seconds, 613);
        assert_eq!(timer(&changed(53, 0), 180).unwrap().seconds, 153);
        let mut short = table(&TCO);
        short[52..56].copy_from_slice(&50u32.to_le_bytes());
        assert_eq!(
            timer(&made::sealed(short), 180),
            Err(Unusable::TooShort(30))
        );
    }

    #[test]
    fn what_linux_leaves_alone_is_left_alone() {
        assert_eq!(timer(&changed(60, 0), 180), Err(Unusable::Off));
        for (at, byte) in [(40, 0), (42, 0), (43, 3), (44, 1)] {
            assert!(
                matches!(timer(&changed(at, byte), 180), Err(Unusable::NotByLinux(_))),
                "byte {at}"
            );
        }
        let mut clock = TCO;
        clock[1][2] = 0x71;
        assert!(matches!(
            timer(&table(&clock), 180),
            Err(Unusable::NotByLinux(_))
        ));
        let mut wide = TCO;
        wide[0][3] = 4;
        assert!(matches!(
            timer(&table(&wide), 180),
            Err(Unusable::NotByLinux(_))
        ));
    }

    #[test]
    fn nonsense_is_refused() {
        for missing in [1, 6, 9] {
            let rest: Vec<_> = TCO.into_iter().filter(|it| it[0] != missing).collect();
            assert!(timer(&table(&rest), 180).is_err(), "action {missing}");
        }
        let mut narrow = TCO;
        narrow[2][5] = 0xff;
        assert!(
            timer(&table(&narrow), 180).is_err(),
            "300 counts do not fit"
        );
        let mut unknown = TCO;
        unknown[4][1] = 7;
        assert!(timer(&table(&unknown), 180).is_err());
        assert!(timer(&changed(64, 8), 180).is_err(), "cut off");
        assert!(timer(&changed(67, 0xff), 180).is_err(), "cut off");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = table(&TCO);
        for length in 0..whole.len() {
            assert!(timer(&whole[..length], 180).is_err());
            if length >= 36 {
                let cut = made::sealed(whole[..length].to_vec());
                assert!(timer(&cut, 180).is_err(), "{length} bytes");
            }
        }
        for at in 36..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let _ = timer(&changed(at, byte), u64::MAX);
            }
        }
    }
}
