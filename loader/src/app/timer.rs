//! The hardware timer from here to the initrd: finds it, arms it, stops it. What it is and for which image it may be
//! armed is decided in `hardware_timer`, for which start in `boot_core::select`.
//!
//! Finding and arming touches what firmware says of its hardware, which may be wrong: an exception of the processor
//! meanwhile is noted in a variable before the machine is reset, and the timer is left alone from then on. It is touched
//! only after the record counts the start, so that a fault that cannot even be noted costs a slot one start.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use boot_core::hand_over;
use hardware_timer::{
    HardwareDescription, Place, Register, Registers, Timer, Unusable, Width, acpi, may_arm,
};
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Event, system};

use super::console::say;
use super::firmware::{self, Direct, by_width, peek};
use super::{VERSION, variables};

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
        let attempt = attempt(&driver);
        if variables::timer_fault().as_deref() == Some(attempt.as_str()) {
            say!("the timer {driver} is not used: firmware faulted in it before");
            return None;
        }
        firmware::note_faults_as(attempt);
        let found = firmware::with_faults_noted(|| hardware_timer::find(&driver, &Hardware))?;
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
    pub(super) fn arm(&mut self, drivers: &[String]) -> Option<hand_over::Timer> {
        let driver = self.timer.driver;
        if !may_arm(driver, &self.proven, drivers) {
            return None;
        }
        let armed = firmware::with_faults_noted(|| match &mut self.function {
            Some(function) => self.timer.arm(function),
            None => self.timer.arm(&mut Direct),
        });
        if let Err(why) = armed {
            say!("the timer {driver} is not used: {why}");
            return None;
        }
        if self.timer.is_direct() {
            // Without it the timer still runs, unless firmware stops it.
            self.at_exit = firmware::arm_at_exit(self.timer).ok();
        }
        say!("timer {driver} armed, {} s", self.timer.seconds);
        Some(hand_over::Timer {
            driver: driver.into(),
            seconds: self.timer.seconds,
        })
    }

    /// Stops it: what it was armed for does not run.
    pub(super) fn stop(&mut self) {
        if let Some(event) = self.at_exit.take() {
            firmware::forget_at_exit(event);
        }
        match &mut self.function {
            Some(function) => self.timer.stop(function),
            None => self.timer.stop(&mut Direct),
        }
    }
}

/// What a fault is noted as: another loader or firmware may try the same timer again.
fn attempt(driver: &str) -> String {
    let revision = system::firmware_revision();
    format!("{driver} {VERSION} {revision:#x}")
}

/// What this machine has.
struct Hardware;

impl HardwareDescription for Hardware {
    type Function = Function;

    fn acpi_table(&self, signature: [u8; 4]) -> Result<Vec<u8>, Unusable> {
        let pointer = system::with_config_table(|entries| {
            let mut entries = entries.iter();
            let found = entries.find(|entry| entry.guid == ConfigTableEntry::ACPI2_GUID);
            found.map(|entry| entry.address.addr() as u64)
        });
        acpi::find(
            signature,
            pointer.ok_or(Unusable::Absent)?,
            firmware::memory,
        )
    }

    fn read(&self, register: Register) -> Option<u32> {
        Direct.read(register)
    }

    fn ticks_per_second(&self) -> Option<u64> {
        firmware::ticks_per_second()
    }

    fn pci_function(&self, id: u32) -> Option<Function> {
        Function::find(id)
    }
}

/// A PCI function: its configuration space, and everything that is [`Direct`].
struct Function {
    bridge: ScopedProtocol<PciRootBridgeIo>,
    address: PciIoAddress,
}

impl Function {
    /// The first whose vendor and device are `id`.
    fn find(id: u32) -> Option<Function> {
        for handle in boot::find_handles::<PciRootBridgeIo>().ok()? {
            let Ok(mut bridge) = peek::<PciRootBridgeIo>(handle) else {
                continue;
            };
            let Ok(tree) = bridge.enumerate() else {
                continue;
            };
            for address in tree.iter().copied() {
                if bridge.pci().read_one::<u32>(address.with_register(0)) == Ok(id) {
                    return Some(Function { bridge, address });
                }
            }
        }
        None
    }
}

impl Registers for Function {
    #[allow(
        clippy::useless_conversion,
        reason = "one of the widths is that of u32"
    )]
    fn read(&mut self, register: Register) -> Option<u32> {
        let Place::Config(number) = register.place else {
            return Direct.read(register);
        };
        let address = self.address.with_register(number);
        let space = self.bridge.pci();
        by_width!(register.width, T => space.read_one::<T>(address).map(u32::from)).ok()
    }

    fn write(&mut self, register: Register, value: u32) -> bool {
        let Place::Config(number) = register.place else {
            return Direct.write(register, value);
        };
        let address = self.address.with_register(number);
        let space = self.bridge.pci();
        by_width!(register.width, T => space.write_one::<T>(address, value as T)).is_ok()
    }
}
