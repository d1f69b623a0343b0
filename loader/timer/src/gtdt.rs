//! The generic watchdog of ARM's server machines, found in ACPI's GTDT.
//!
//! Sources: ACPI 6.5, section 5.2.25 (the table); Arm Base System Architecture, section "Watchdog" (the registers).
//!
//! ```text
//! table: 88 timers   each timer: 0  type (1: watchdog)    control frame: 0x000 WCS, bit 0: enabled
//!        92 offset               1  length, 2 bytes                      0x008 WOR, 32 or 48 bits
//!                                4  refresh frame                        0xfcc IIDR, bits 16..20: version
//!                                12 control frame
//!                                24 flags, bit 2: secure
//! ```
//!
//! It counts to the offset (WOR) twice: the first time it raises a signal, the second time it resets the machine.

use alloc::vec::Vec;

use super::acpi::{self, u8_at, u16_at, u32_at, u64_at};
use super::{Place, Register, SECONDS_MIN, Sign, Timer, Unusable, Width, Write};

/// The table's signature.
pub const SIGNATURE: [u8; 4] = *b"GTDT";
/// Linux's driver.
pub const DRIVER: &str = "sbsa_gwdt";

const WATCHDOG: u8 = 1;
const WATCHDOG_LENGTH: usize = 28;
/// Flag: only firmware can reach it.
const SECURE: u32 = 1 << 2;

const WCS: u64 = 0;
const WOR: u64 = 8;
const WOR_HIGH: u64 = 12;
const IIDR: u64 = 0xfcc;
const ENABLED: u32 = 1;

/// A watchdog that the table names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchdog {
    control: u64,
}

impl Watchdog {
    /// The first that software outside the firmware can reach.
    pub fn find(table: &[u8]) -> Result<Watchdog, Unusable> {
        acpi::check(table, SIGNATURE)?;
        let count = u32_at(table, 88)?;
        let mut at = usize::try_from(u32_at(table, 92)?).map_err(|_| Unusable::Truncated)?;
        for _ in 0..count {
            let timer = table.get(at..).ok_or(Unusable::Truncated)?;
            let length = usize::from(u16_at(timer, 1)?);
            // One of no length would be looked at for ever.
            if length < 4 {
                return Err(Unusable::Nonsense("a timer without a length"));
            }
            if u8_at(timer, 0)? == WATCHDOG
                && length >= WATCHDOG_LENGTH
                && u32_at(timer, 24)? & SECURE == 0
            {
                let control = acpi::address(u64_at(timer, 12)?)?;
                return Ok(Watchdog { control });
            }
            at = at.checked_add(length).ok_or(Unusable::Truncated)?;
        }
        Err(Unusable::Absent)
    }

    fn register(self, offset: u64) -> Register {
        Register::new(
            Place::Memory(self.control.saturating_add(offset)),
            Width::Double,
        )
    }

    /// The register that tells its version.
    #[must_use]
    pub fn identification(self) -> Register {
        self.register(IIDR)
    }

    /// How it is set to `seconds`, or as long as it can be. `identification` is that register's value, `frequency` the
    /// system counter's, in Hz.
    pub fn timer(
        self,
        identification: u32,
        frequency: u64,
        seconds: u64,
    ) -> Result<Timer, Unusable> {
        let wide = (identification >> 16) & 0xf > 0;
        let highest = if wide {
            (1u64 << 48) - 1
        } else {
            u64::from(u32::MAX)
        };
        let offset = (seconds / 2).saturating_mul(frequency).min(highest);
        let seconds = offset
            .checked_div(frequency)
            .ok_or(Unusable::Nonsense("a counter that stands still"))?
            .saturating_mul(2);
        if seconds < SECONDS_MIN {
            return Err(Unusable::TooShort(seconds));
        }
        let write = |offset, value| Write {
            register: self.register(offset),
            keep: 0,
            value,
        };
        let low = u32::try_from(offset & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let mut arm: Vec<Write> = alloc::vec![write(WOR, low)];
        if wide {
            let high = u32::try_from(offset >> 32).unwrap_or(u32::MAX);
            arm.push(write(WOR_HIGH, high));
        }
        // Starts the time as well.
        arm.push(write(WCS, ENABLED));
        Ok(Timer {
            driver: DRIVER,
            seconds,
            arm,
            stop: alloc::vec![write(WCS, 0)],
            running: Some(Sign {
                register: self.register(WCS),
                mask: ENABLED,
                value: ENABLED,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::acpi::made;
    use super::super::simulated::Simulated;
    use super::*;

    const MHZ: u64 = 1_000_000;

    /// A timer of another kind, then a watchdog for each of `flags`, control frames from 0x2000 on.
    fn table(flags: &[u32]) -> Vec<u8> {
        let mut table = made::header(&SIGNATURE);
        table.resize(104, 0);
        table[88..92].copy_from_slice(&u32::try_from(flags.len() + 1).unwrap().to_le_bytes());
        table[92..96].copy_from_slice(&104u32.to_le_bytes());
        table.extend([0, 20, 0, 0]);
        table.resize(124, 0);
        for (flags, control) in flags.iter().zip((0x2000u64..).step_by(0x1000)) {
            table.extend([WATCHDOG, 28, 0, 0]);
            table.extend(0x9000u64.to_le_bytes());
            table.extend(control.to_le_bytes());
            table.extend(60u32.to_le_bytes());
            table.extend(flags.to_le_bytes());
        }
        made::sealed(table)
    }

    #[test]
    fn the_first_that_is_not_the_firmwares_own() {
        let control = |flags: &[u32]| Watchdog::find(&table(flags)).map(|it| it.control);
        assert_eq!(control(&[0, 0]), Ok(0x2000));
        assert_eq!(control(&[SECURE, 0]), Ok(0x3000));
        assert_eq!(control(&[SECURE]), Err(Unusable::Absent));
        assert_eq!(control(&[]), Err(Unusable::Absent));
    }

    #[test]
    fn it_is_set_to_half_the_time_started_and_stopped() {
        let watchdog = Watchdog::find(&table(&[0])).unwrap();
        let timer = watchdog.timer(0, 25 * MHZ, 180).unwrap();
        assert_eq!((timer.driver, timer.seconds), ("sbsa_gwdt", 180));
        let mut registers = Simulated::default();
        timer.arm(&mut registers).unwrap();
        let at = |offset| Place::Memory(0x2000 + offset);
        let half = u32::try_from(90 * 25 * MHZ).unwrap();
        assert_eq!(registers.writes, [(at(WOR), half), (at(WCS), 1)]);
        timer.stop(&mut registers);
        assert_eq!(registers.values[&at(WCS)], 0);
    }

    #[test]
    fn a_fast_counter_needs_a_wide_register() {
        let watchdog = Watchdog::find(&table(&[0])).unwrap();
        assert_eq!(
            watchdog.timer(0, 1000 * MHZ, 180),
            Err(Unusable::TooShort(8))
        );
        assert_eq!(watchdog.timer(0, 100 * MHZ, 180).unwrap().seconds, 84);
        let timer = watchdog.timer(1 << 16, 1000 * MHZ, 180).unwrap();
        assert_eq!(timer.seconds, 180);
        let mut registers = Simulated::default();
        timer.arm(&mut registers).unwrap();
        let value = |offset| u64::from(registers.values[&Place::Memory(0x2000 + offset)]);
        assert_eq!(value(WOR) | value(WOR_HIGH) << 32, 90_000 * MHZ);
        assert!(watchdog.timer(0, 0, 180).is_err());
        assert!(watchdog.timer(0xf << 16, u64::MAX, u64::MAX).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = table(&[SECURE, 0]);
        for length in 36..whole.len() {
            let cut = made::sealed(whole[..length].to_vec());
            assert!(Watchdog::find(&cut).is_err(), "{length} bytes");
        }
        for at in 36..whole.len() {
            for byte in [0, 1, 3, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = Watchdog::find(&made::sealed(damaged));
            }
        }
    }
}
