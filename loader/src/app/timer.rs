//! The hardware timer from here to the initrd: finds it, arms it, stops it. What it is and whether it may be armed is
//! decided in `loader::timer`.

use alloc::boxed::Box;
use alloc::string::String;

use boot_core::handover;
use loader::timer::{Program, Registers, SECONDS, Unusable, gtdt, i6300esb, may_arm, wdat};
use uefi::Event;

use super::console::say;
use super::firmware::registers::{self, Direct, Function};
use super::{firmware, variables};

/// A timer that this machine has and that a running system on it has driven.
pub(super) struct Timer {
    proven: String,
    program: &'static Program,
    function: Option<Function>,
    at_exit: Option<Event>,
}

impl Timer {
    /// Looks for the timer that the last system that came up here drove.
    pub(super) fn find() -> Option<Timer> {
        let driver = variables::watchdog()?;
        let found = match driver.as_str() {
            wdat::DRIVER => described_by_wdat(),
            gtdt::DRIVER => described_by_gtdt(),
            i6300esb::DRIVER => on_pci(),
            // Linux drives it, and nothing tells the loader how.
            _ => return None,
        };
        match found {
            Ok((program, function)) => Some(Timer {
                proven: driver,
                program: Box::leak(Box::new(program)),
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
        let driver = self.program.driver;
        if !may_arm(driver, &self.proven, drivers) {
            return None;
        }
        let armed = match &mut self.function {
            Some(function) => self.program.arm(function),
            None => self.program.arm(&mut Direct),
        };
        if let Err(why) = armed {
            say!("the timer {driver} is not used: {why}");
            return None;
        }
        if self.program.is_direct() {
            // Without it the timer still runs, unless firmware stops it.
            self.at_exit = registers::arm_at_exit(self.program).ok();
        }
        say!("timer {driver} armed, {} s", self.program.seconds);
        Some(handover::Timer {
            driver: driver.into(),
            seconds: self.program.seconds,
        })
    }

    /// Stops it: what it was armed for does not run.
    pub(super) fn stop(&mut self) {
        if let Some(event) = self.at_exit.take() {
            registers::forget_at_exit(event);
        }
        match &mut self.function {
            Some(function) => self.program.stop(function),
            None => self.program.stop(&mut Direct),
        }
    }
}

type Found = Result<(Program, Option<Function>), Unusable>;

fn described_by_wdat() -> Found {
    let table = registers::acpi_table(wdat::SIGNATURE)?;
    Ok((wdat::program(&table, SECONDS)?, None))
}

fn described_by_gtdt() -> Found {
    let watchdog = gtdt::Watchdog::find(&registers::acpi_table(gtdt::SIGNATURE)?)?;
    let identification = Direct
        .read(watchdog.identification())
        .ok_or(Unusable::Nonsense("an address"))?;
    let frequency = firmware::ticks_per_second().unwrap_or(0);
    Ok((watchdog.program(identification, frequency, SECONDS)?, None))
}

fn on_pci() -> Found {
    let mut function = Function::find(i6300esb::FUNCTION).ok_or(Unusable::Absent)?;
    let base = function.read(i6300esb::BASE).ok_or(Unusable::Absent)?;
    Ok((i6300esb::program(base, SECONDS)?, Some(function)))
}
