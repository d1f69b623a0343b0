//! The hardware timer from here to the initrd: finds it, arms it, stops it. What it is and whether it may be armed is
//! decided in `hardware_timer`.

use alloc::boxed::Box;
use alloc::string::String;

use boot_core::handover;
use hardware_timer::{Registers, SECONDS, Timer, Unusable, gtdt, i6300esb, may_arm, wdat};
use uefi::Event;

use super::console::say;
use super::firmware::registers::{self, Direct, Function};
use super::{firmware, variables};

/// A timer that this machine has and that a running system on it has driven.
pub(super) struct ProvenTimer {
    proven: String,
    timer: &'static Timer,
    function: Option<Function>,
    at_exit: Option<Event>,
}

impl ProvenTimer {
    /// Looks for the timer that the last system that came up here drove.
    pub(super) fn find() -> Option<ProvenTimer> {
        let driver = variables::watchdog()?;
        let found = match driver.as_str() {
            wdat::DRIVER => described_by_wdat(),
            gtdt::DRIVER => described_by_gtdt(),
            i6300esb::DRIVER => on_pci(),
            // Linux drives it, and nothing tells the loader how.
            _ => return None,
        };
        match found {
            Ok((timer, function)) => Some(ProvenTimer {
                proven: driver,
                timer: Box::leak(Box::new(timer)),
                function,
                at_exit: None,
            }),
            Err(why) => {
                say!("the timer {driver} is not used: {why}");
                None
            }
        }
    }

    /// Arms it for an image whose initramfs has `drivers`, if it may be armed for that.
    pub(super) fn arm(&mut self, drivers: &[String]) -> Option<handover::Timer> {
        let driver = self.timer.driver;
        if !may_arm(driver, &self.proven, drivers) {
            return None;
        }
        let armed = match &mut self.function {
            Some(function) => self.timer.arm(function),
            None => self.timer.arm(&mut Direct),
        };
        if let Err(why) = armed {
            say!("the timer {driver} is not used: {why}");
            return None;
        }
        if self.timer.is_direct() {
            // Without it the timer still runs, unless firmware stops it.
            self.at_exit = registers::arm_at_exit(self.timer).ok();
        }
        say!("timer {driver} armed, {} s", self.timer.seconds);
        Some(handover::Timer {
            driver: driver.into(),
            seconds: self.timer.seconds,
        })
    }

    /// Stops it: what it was armed for does not run.
    pub(super) fn stop(&mut self) {
        if let Some(event) = self.at_exit.take() {
            registers::forget_at_exit(event);
        }
        match &mut self.function {
            Some(function) => self.timer.stop(function),
            None => self.timer.stop(&mut Direct),
        }
    }
}

type Found = Result<(Timer, Option<Function>), Unusable>;

fn described_by_wdat() -> Found {
    let table = registers::acpi_table(wdat::SIGNATURE)?;
    Ok((wdat::timer(&table, SECONDS)?, None))
}

fn described_by_gtdt() -> Found {
    let watchdog = gtdt::Watchdog::find(&registers::acpi_table(gtdt::SIGNATURE)?)?;
    let identification = Direct
        .read(watchdog.identification())
        .ok_or(Unusable::Nonsense("an address"))?;
    let frequency = firmware::ticks_per_second().unwrap_or(0);
    Ok((watchdog.timer(identification, frequency, SECONDS)?, None))
}

fn on_pci() -> Found {
    let mut function = Function::find(i6300esb::FUNCTION).ok_or(Unusable::Absent)?;
    let base = function.read(i6300esb::BASE).ok_or(Unusable::Absent)?;
    Ok((i6300esb::timer(base, SECONDS)?, Some(function)))
}
