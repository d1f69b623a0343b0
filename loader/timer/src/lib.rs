//! The hardware timer that runs from the loader's end until the initrd's watchdog takes over.
//!
//! What a platform says of its timer (an ACPI table, a PCI function) becomes a [`Timer`]: the register accesses that
//! arm it, that stop it, and that show whether it runs. Pure; whoever has the registers runs it ([`Registers`]).
//!
//! | driver that takes over | where the timer is described |
//! | --- | --- |
//! | `wdat_wdt` | ACPI WDAT ([`wdat`]) |
//! | `sbsa_gwdt` | ACPI GTDT ([`gtdt`]) |
//! | `i6300esb` | PCI function 8086:25ab ([`i6300esb`]) |
//!
//! Each is refused where its Linux driver would refuse it: a timer that nobody takes over resets a machine that is
//! well. When it may be armed at all is decided in [`may_arm`].

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// A panic in the boot path leaves nobody to fall back: what can panic is refused.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;

pub mod acpi;
pub mod gtdt;
pub mod i6300esb;
pub mod wdat;

/// What the timer is set to, where it can be: from the UKI's start to the initrd's first step. Slow machines need half
/// a minute for that, emulated ones more.
pub const SECONDS: u64 = 180;

/// A timer that cannot be set to this much is left alone: it would reset a machine that is merely slow.
pub const SECONDS_MIN: u64 = 60;

/// Whether the loader may arm the timer that `driver` takes over.
///
/// Both must hold: the last system that came up on this very machine said that its watchdog was driven by `driver`
/// (`proven`, kept in the machine's firmware), and what is to be started has that driver in its initramfs (`drivers`,
/// from its manifest).
#[must_use]
pub fn may_arm(driver: &str, proven: &str, drivers: &[impl AsRef<str>]) -> bool {
    proven == driver && drivers.iter().any(|it| it.as_ref() == driver)
}

/// What a machine says of its hardware.
pub trait HardwareDescription {
    /// A PCI function, with its configuration space.
    type Function: Registers;

    /// The whole ACPI table with this signature.
    ///
    /// # Errors
    /// There is none, or what leads to it is damaged.
    fn acpi_table(&self, signature: [u8; 4]) -> Result<Vec<u8>, Unusable>;

    /// Reads a register in memory or at a port.
    fn read(&self, register: Register) -> Option<u32>;

    /// Ticks in a second of the processor's counter, where it says so.
    fn ticks_per_second(&self) -> Option<u64>;

    /// The first PCI function whose vendor and device are `id`.
    fn pci_function(&self, id: u32) -> Option<Self::Function>;
}

/// A timer, and the PCI function whose configuration space it needs.
pub type Found<F> = Result<(Timer, Option<F>), Unusable>;

/// The timer that Linux's `driver` drives, set to [`SECONDS`] where it can be; none if nothing tells the loader how.
pub fn find<H: HardwareDescription>(driver: &str, hardware: &H) -> Option<Found<H::Function>> {
    match driver {
        wdat::DRIVER => Some(described_by_wdat(hardware).map(|timer| (timer, None))),
        gtdt::DRIVER => Some(described_by_gtdt(hardware).map(|timer| (timer, None))),
        i6300esb::DRIVER => Some(on_pci(hardware)),
        _ => None,
    }
}

fn described_by_wdat(hardware: &impl HardwareDescription) -> Result<Timer, Unusable> {
    wdat::timer(&hardware.acpi_table(wdat::SIGNATURE)?, SECONDS)
}

fn described_by_gtdt(hardware: &impl HardwareDescription) -> Result<Timer, Unusable> {
    let watchdog = gtdt::Watchdog::find(&hardware.acpi_table(gtdt::SIGNATURE)?)?;
    let identification = hardware
        .read(watchdog.identification())
        .ok_or(Unusable::Nonsense("an address"))?;
    watchdog.timer(
        identification,
        hardware.ticks_per_second().unwrap_or(0),
        SECONDS,
    )
}

fn on_pci<H: HardwareDescription>(hardware: &H) -> Found<H::Function> {
    let mut function = hardware
        .pci_function(i6300esb::FUNCTION)
        .ok_or(Unusable::Absent)?;
    let base = function.read(i6300esb::BASE).ok_or(Unusable::Absent)?;
    Ok((i6300esb::timer(base, SECONDS)?, Some(function)))
}

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A port.
    Io(u16),
    /// Physical memory.
    Memory(u64),
    /// A register in the configuration space of the PCI function that the timer is for.
    Config(u8),
}

/// Bytes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// One.
    Byte,
    /// Two.
    Word,
    /// Four.
    Double,
}

impl Width {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Width::Byte => 1,
            Width::Word => 2,
            Width::Double => 4,
        }
    }

    /// The width of an ACPI generic address (ACPI 6.5, table 5.1), where a timer's register may have it.
    #[must_use]
    pub const fn from_acpi(access: u8) -> Option<Width> {
        match access {
            1 => Some(Width::Byte),
            2 => Some(Width::Word),
            3 => Some(Width::Double),
            _ => None,
        }
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    pub place: Place,
    /// How wide.
    pub width: Width,
}

impl Register {
    /// A register of `width` at `place`.
    #[must_use]
    pub const fn new(place: Place, width: Width) -> Register {
        Register { place, width }
    }
}

/// One write: `value`, with the bits of `keep` as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    pub register: Register,
    /// Bits that stay; 0 writes without reading first.
    pub keep: u32,
    /// The others.
    pub value: u32,
}

/// What a register shows while the timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// Which register.
    pub register: Register,
    /// The bits to look at.
    pub mask: u32,
    /// What they are.
    pub value: u32,
}

/// How one timer is armed and stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Linux's driver of it.
    pub driver: &'static str,
    /// Seconds until it resets the machine.
    pub seconds: u64,
    arm: Vec<Write>,
    stop: Vec<Write>,
    running: Option<Sign>,
}

/// Whoever has registers.
pub trait Registers {
    /// Reads one; `None` if it cannot be reached.
    fn read(&mut self, register: Register) -> Option<u32>;
    /// Writes one; `false` if it cannot be reached.
    fn write(&mut self, register: Register, value: u32) -> bool;
}

/// Why a timer does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotArmed {
    /// A register cannot be reached.
    OutOfReach(Register),
    /// It does not say that it runs.
    NotRunning,
}

impl fmt::Display for NotArmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotArmed::OutOfReach(register) => {
                write!(f, "its register {:x?} cannot be reached", register.place)
            }
            NotArmed::NotRunning => f.write_str("it does not start to run"),
        }
    }
}

impl Timer {
    /// Arms the timer, or starts its time anew.
    ///
    /// # Errors
    /// It does not run then; it was stopped again if it could be.
    pub fn arm(&self, registers: &mut impl Registers) -> Result<(), NotArmed> {
        let armed = run(&self.arm, registers).and_then(|()| self.look(registers));
        if armed.is_err() {
            self.stop(registers);
        }
        armed
    }

    /// Stops it, where it can be stopped.
    pub fn stop(&self, registers: &mut impl Registers) {
        // What cannot be reached does not run.
        let _ = run(&self.stop, registers);
    }

    /// Whether it needs nothing but memory and ports: what may be touched while boot services end.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        !self
            .arm
            .iter()
            .any(|write| matches!(write.register.place, Place::Config(_)))
    }

    fn look(&self, registers: &mut impl Registers) -> Result<(), NotArmed> {
        let Some(sign) = self.running else {
            return Ok(());
        };
        match registers.read(sign.register) {
            None => Err(NotArmed::OutOfReach(sign.register)),
            Some(found) if found & sign.mask == sign.value => Ok(()),
            Some(_) => Err(NotArmed::NotRunning),
        }
    }
}

fn run(writes: &[Write], registers: &mut impl Registers) -> Result<(), NotArmed> {
    for write in writes {
        let out_of_reach = NotArmed::OutOfReach(write.register);
        let kept = match write.keep {
            0 => 0,
            keep => registers.read(write.register).ok_or(out_of_reach)? & keep,
        };
        if !registers.write(write.register, kept | write.value) {
            return Err(out_of_reach);
        }
    }
    Ok(())
}

/// Why a description of a timer is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Shorter than it says.
    Truncated,
    /// Nothing in it that the loader could use.
    Absent,
    /// The firmware says that the timer is off.
    Off,
    /// Linux does not use such a one.
    NotByLinux(&'static str),
    /// A value that makes no sense.
    Nonsense(&'static str),
    /// It cannot be set to [`SECONDS_MIN`]; to how much it can.
    TooShort(u64),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Truncated => f.write_str("its description is cut off"),
            Unusable::Absent => f.write_str("firmware describes none"),
            Unusable::Off => f.write_str("firmware says that it is off"),
            Unusable::NotByLinux(why) => write!(f, "Linux does not use it: {why}"),
            Unusable::Nonsense(what) => write!(f, "its description makes no sense: {what}"),
            Unusable::TooShort(seconds) => write!(
                f,
                "it runs for {seconds} s at most, {SECONDS_MIN} s are needed"
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod simulated {
    //! Registers that remember.

    use std::collections::BTreeMap;

    use super::*;

    /// Registers by place, and every write in order.
    #[derive(Default)]
    pub(crate) struct Simulated {
        pub(crate) values: BTreeMap<Place, u32>,
        pub(crate) writes: Vec<(Place, u32)>,
        /// Cannot be reached.
        pub(crate) absent: Option<Place>,
        /// Keeps its value whatever is written.
        pub(crate) stuck: Option<Place>,
    }

    impl Registers for Simulated {
        fn read(&mut self, register: Register) -> Option<u32> {
            if self.absent == Some(register.place) {
                return None;
            }
            Some(self.values.get(&register.place).copied().unwrap_or(0))
        }

        fn write(&mut self, register: Register, value: u32) -> bool {
            if self.absent == Some(register.place) {
                return false;
            }
            self.writes.push((register.place, value));
            if self.stuck != Some(register.place) {
                self.values.insert(register.place, value);
            }
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::simulated::Simulated;
    use super::*;

    const PORT: Register = Register::new(Place::Io(0x10), Width::Byte);

    fn timer() -> Timer {
        Timer {
            driver: "test",
            seconds: 60,
            arm: alloc::vec![Write {
                register: PORT,
                keep: 0xf0,
                value: 0x01,
            }],
            stop: alloc::vec![Write {
                register: PORT,
                keep: 0xf0,
                value: 0,
            }],
            running: Some(Sign {
                register: PORT,
                mask: 1,
                value: 1,
            }),
        }
    }

    /// A machine with one PCI function, and no tables.
    struct WithFunction;

    impl HardwareDescription for WithFunction {
        type Function = Simulated;
        fn acpi_table(&self, _: [u8; 4]) -> Result<Vec<u8>, Unusable> {
            Err(Unusable::Absent)
        }
        fn read(&self, _: Register) -> Option<u32> {
            None
        }
        fn ticks_per_second(&self) -> Option<u64> {
            None
        }
        fn pci_function(&self, id: u32) -> Option<Simulated> {
            let mut function = Simulated::default();
            function.values.insert(i6300esb::BASE.place, 0xfebd_1000);
            (id == i6300esb::FUNCTION).then_some(function)
        }
    }

    #[test]
    fn a_timer_is_found_by_its_driver() {
        let (timer, function) = find("i6300esb", &WithFunction).unwrap().unwrap();
        assert!(timer.driver == "i6300esb" && function.is_some());
        for driver in [wdat::DRIVER, gtdt::DRIVER] {
            let found = find(driver, &WithFunction).unwrap();
            assert_eq!(found.map(|(timer, _)| timer), Err(Unusable::Absent));
        }
        assert!(find("iTCO_wdt", &WithFunction).is_none());
    }

    #[test]
    fn only_what_is_proven_and_has_its_driver_is_armed() {
        let drivers = ["i6300esb", "wdat_wdt"];
        assert!(may_arm("wdat_wdt", "wdat_wdt", &drivers));
        assert!(!may_arm("wdat_wdt", "", &drivers), "not proven");
        assert!(
            !may_arm("wdat_wdt", "iTCO_wdt", &drivers),
            "another one is driven here"
        );
        assert!(
            !may_arm("sbsa_gwdt", "sbsa_gwdt", &drivers),
            "the image has no driver"
        );
        assert!(!may_arm("wdat_wdt", "wdat_wdt", &[] as &[&str]));
    }

    #[test]
    fn bits_that_are_to_stay_stay() {
        let mut registers = Simulated::default();
        registers.values.insert(PORT.place, 0xa6);
        timer().arm(&mut registers).unwrap();
        assert_eq!(registers.values[&PORT.place], 0xa1);
        timer().stop(&mut registers);
        assert_eq!(registers.values[&PORT.place], 0xa0);
    }

    #[test]
    fn a_timer_that_does_not_run_is_no_timer() {
        let mut registers = Simulated {
            stuck: Some(PORT.place),
            ..Simulated::default()
        };
        assert_eq!(timer().arm(&mut registers), Err(NotArmed::NotRunning));
        assert_eq!(
            registers.writes.last(),
            Some(&(PORT.place, 0)),
            "stopped again"
        );
        registers.absent = Some(PORT.place);
        assert_eq!(timer().arm(&mut registers), Err(NotArmed::OutOfReach(PORT)));
    }
}
