//! The timer of Intel's 6300ESB, which QEMU emulates on any machine with PCI.
//!
//! Source: Intel 6300ESB I/O Controller Hub datasheet (300641-004), chapter 16. It counts down twice at about 1 kHz: the
//! first time it can interrupt, the second time it resets the machine. Its counters are in memory and take a value only
//! after two bytes that unlock them; it is started in PCI configuration space. It is never locked: Linux's driver stops
//! it while it takes over.

use super::{Place, Register, Sign, Timer, Unusable, Width, Write};

/// Vendor and device, as the first four bytes of the configuration space say them.
pub const FUNCTION: u32 = 0x25ab_8086;
/// The register that says where the counters are.
pub const BASE: Register = Register::new(Place::Config(0x10), Width::Double);
/// Linux's driver.
pub const DRIVER: &str = "i6300esb";

const COMMAND: Register = Register::new(Place::Config(0x04), Width::Word);
const COMMAND_MEMORY: u32 = 2;
const CONFIG: Register = Register::new(Place::Config(0x60), Width::Word);
/// No interrupt, reset allowed, about 1 kHz.
const CONFIG_RESET: u32 = 3;
const LOCK: Register = Register::new(Place::Config(0x68), Width::Byte);
const LOCK_ENABLED: u32 = 2;

const TIMER_1: u64 = 0;
const TIMER_2: u64 = 4;
const RELOAD: u64 = 12;
const RELOAD_NOW: u32 = 1 << 8;
const UNLOCK: [u32; 2] = [0x80, 0x86];
/// Bits of each counter.
const COUNTER_MAX: u64 = (1 << 20) - 1;
/// Counts a second of the two counters together, each.
const COUNTS: u64 = 512;

/// How the timer is set to `seconds`. `base` is the value of [`BASE`].
pub fn timer(base: u32, seconds: u64) -> Result<Timer, Unusable> {
    // Bits 0 to 3 say what kind of address it is: memory below 4 GiB is 0.
    if base & 0xf != 0 || base == 0 {
        return Err(Unusable::Nonsense("its counters are not in memory"));
    }
    let base = u64::from(base);
    let count = seconds.saturating_mul(COUNTS).min(COUNTER_MAX);
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let write = |register, value| Write {
        register,
        keep: 0,
        value,
    };
    let memory = |offset: u64, width| {
        let place = Place::Memory(base.saturating_add(offset));
        Register::new(place, width)
    };
    let stop = write(LOCK, 0);
    let mut arm = alloc::vec![
        Write {
            register: COMMAND,
            keep: 0xffff,
            value: COMMAND_MEMORY,
        },
        write(CONFIG, CONFIG_RESET),
        stop,
    ];
    for (offset, width, value) in [
        (TIMER_1, Width::Double, count),
        (TIMER_2, Width::Double, count),
        (RELOAD, Width::Word, RELOAD_NOW),
    ] {
        arm.extend(UNLOCK.map(|byte| write(memory(RELOAD, Width::Byte), byte)));
        arm.push(write(memory(offset, width), value));
    }
    arm.push(write(LOCK, LOCK_ENABLED));
    Ok(Timer {
        driver: DRIVER,
        seconds: u64::from(count) / COUNTS,
        arm,
        stop: alloc::vec![stop],
        running: Some(Sign {
            register: LOCK,
            mask: LOCK_ENABLED,
            value: LOCK_ENABLED,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Simulated;
    use super::*;

    #[test]
    fn each_counter_is_unlocked_before_it_is_set_and_the_timer_started_last() {
        let timer = timer(0xfebd_1000, 180).unwrap();
        assert_eq!((timer.driver, timer.seconds), ("i6300esb", 180));
        assert!(!timer.is_direct());
        let mut registers = Simulated::default();
        registers.values.insert(COMMAND.place, 0x0100);
        timer.arm(&mut registers).unwrap();
        let at = |offset: u64| Place::Memory(0xfebd_1000 + offset);
        assert_eq!(
            registers.writes,
            [
                (COMMAND.place, 0x0102),
                (CONFIG.place, 3),
                (LOCK.place, 0),
                (at(RELOAD), 0x80),
                (at(RELOAD), 0x86),
                (at(TIMER_1), 180 * 512),
                (at(RELOAD), 0x80),
                (at(RELOAD), 0x86),
                (at(TIMER_2), 180 * 512),
                (at(RELOAD), 0x80),
                (at(RELOAD), 0x86),
                (at(RELOAD), 0x100),
                (LOCK.place, 2),
            ]
        );
        timer.stop(&mut registers);
        assert_eq!(registers.values[&LOCK.place], 0);
    }

    #[test]
    fn a_function_without_memory_is_refused() {
        for base in [0, 1, 0xfebd_1001, 0xfebd_1004] {
            assert!(timer(base, 180).is_err(), "{base:x}");
        }
        assert_eq!(timer(0x1000, u64::MAX).unwrap().seconds, 2047);
    }
}
