//! Registers of hardware timers, and the ACPI tables that describe them.
//!
//! Which registers are written, and with what, is decided by `hardware_timer` from what the firmware says of its own
//! hardware; nothing here can check that the firmware tells the truth. It is asked only on a machine on which a running
//! system has driven that very timer (`app::timer`).

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

use alloc::vec::Vec;
use hardware_timer::{Place, Register, Registers, Timer, Unusable, Width, acpi};
use uefi::boot::{self, EventType, ScopedProtocol, Tpl};
use uefi::proto::pci::PciIoAddress;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Event, system};

use super::peek;

/// Memory and ports.
pub(in crate::app) struct Direct;

impl Registers for Direct {
    fn read(&mut self, register: Register) -> Option<u32> {
        match register.place {
            Place::Memory(address) => {
                let at = aligned(address, register.width)?;
                // SAFETY: the address is aligned and is one that the firmware names as a register of its hardware;
                // boot services map all of it one to one. Reading a timer's register has no effect on memory.
                Some(unsafe {
                    match register.width {
                        Width::Byte => u32::from(at.read_volatile()),
                        Width::Word => u32::from(at.cast::<u16>().read_volatile()),
                        Width::Double => at.cast::<u32>().read_volatile(),
                    }
                })
            }
            Place::Io(port) => port_read(port, register.width),
            Place::Config(_) => None,
        }
    }

    fn write(&mut self, register: Register, value: u32) -> bool {
        let [byte, second, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([byte, second]);
        match register.place {
            Place::Memory(address) => {
                let Some(at) = aligned(address, register.width) else {
                    return false;
                };
                // SAFETY: as for reading; and nothing of ours lies in a timer's registers.
                unsafe {
                    match register.width {
                        Width::Byte => at.write_volatile(byte),
                        Width::Word => at.cast::<u16>().write_volatile(word),
                        Width::Double => at.cast::<u32>().write_volatile(value),
                    }
                }
                true
            }
            Place::Io(port) => port_write(port, register.width, value),
            Place::Config(_) => false,
        }
    }
}

/// A pointer to a register in memory, if it may lie there.
fn aligned(address: u64, width: Width) -> Option<*mut u8> {
    let address = usize::try_from(address).ok()?;
    (address != 0 && address.is_multiple_of(usize::from(width.bytes())))
        .then(|| ptr::with_exposed_provenance_mut(address))
}

#[cfg(target_arch = "x86_64")]
fn port_read(port: u16, width: Width) -> Option<u32> {
    use core::arch::asm;
    let value: u32;
    // SAFETY: UEFI applications run with all ports open, and reading a timer's port touches no memory.
    unsafe {
        match width {
            Width::Byte => {
                let byte: u8;
                asm!("in al, dx", in("dx") port, out("al") byte, options(nomem, nostack, preserves_flags));
                value = u32::from(byte);
            }
            Width::Word => {
                let word: u16;
                asm!("in ax, dx", in("dx") port, out("ax") word, options(nomem, nostack, preserves_flags));
                value = u32::from(word);
            }
            Width::Double => {
                asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags));
            }
        }
    }
    Some(value)
}

#[cfg(target_arch = "x86_64")]
fn port_write(port: u16, width: Width, value: u32) -> bool {
    use core::arch::asm;
    let [byte, second, ..] = value.to_le_bytes();
    let word = u16::from_le_bytes([byte, second]);
    // SAFETY: UEFI applications run with all ports open, and writing a timer's port touches no memory.
    unsafe {
        match width {
            Width::Byte => {
                asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
            }
            Width::Word => {
                asm!("out dx, ax", in("dx") port, in("ax") word, options(nomem, nostack, preserves_flags));
            }
            Width::Double => {
                asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags));
            }
        }
    }
    true
}

/// There are no ports.
#[cfg(target_arch = "aarch64")]
fn port_read(_port: u16, _width: Width) -> Option<u32> {
    None
}

/// There are no ports.
#[cfg(target_arch = "aarch64")]
fn port_write(_port: u16, _width: Width, _value: u32) -> bool {
    false
}

/// A PCI function: its configuration space, and everything that is [`Direct`].
pub(in crate::app) struct Function {
    bridge: ScopedProtocol<PciRootBridgeIo>,
    address: PciIoAddress,
}

impl Function {
    /// The first whose vendor and device are `id`.
    pub(in crate::app) fn find(id: u32) -> Option<Function> {
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
    fn read(&mut self, register: Register) -> Option<u32> {
        let Place::Config(number) = register.place else {
            return Direct.read(register);
        };
        let address = self.address.with_register(number);
        let space = self.bridge.pci();
        match register.width {
            Width::Byte => space.read_one::<u8>(address).map(u32::from),
            Width::Word => space.read_one::<u16>(address).map(u32::from),
            Width::Double => space.read_one::<u32>(address),
        }
        .ok()
    }

    fn write(&mut self, register: Register, value: u32) -> bool {
        let Place::Config(number) = register.place else {
            return Direct.write(register, value);
        };
        let [byte, second, ..] = value.to_le_bytes();
        let address = self.address.with_register(number);
        let space = self.bridge.pci();
        match register.width {
            Width::Byte => space.write_one::<u8>(address, byte),
            Width::Word => space.write_one::<u16>(address, u16::from_le_bytes([byte, second])),
            Width::Double => space.write_one::<u32>(address, value),
        }
        .is_ok()
    }
}

/// The first ACPI table with this signature.
pub(in crate::app) fn acpi_table(signature: [u8; 4]) -> Result<Vec<u8>, Unusable> {
    let pointer = system::with_config_table(|entries| {
        entries
            .iter()
            .find(|entry| entry.guid == ConfigTableEntry::ACPI2_GUID)
            .map(|entry| entry.address.addr() as u64)
    })
    .ok_or(Unusable::Absent)?;
    acpi::find(signature, pointer, bytes)
}

/// A copy of memory at `address`, which the firmware's tables name.
fn bytes(address: u64, length: usize) -> Result<Vec<u8>, Unusable> {
    let address = usize::try_from(address).map_err(|_| Unusable::Nonsense("an address"))?;
    let start: *const u8 = ptr::with_exposed_provenance(address);
    if start.is_null() {
        return Err(Unusable::Nonsense("an address"));
    }
    // SAFETY: the firmware names this address as that of one of its tables, which lie in memory that boot services map
    // one to one and that nothing changes while the loader runs; the length is bounded by `acpi::TABLE_MAX`.
    Ok(unsafe { core::slice::from_raw_parts(start, length) }.to_vec())
}

/// What is armed once more when boot services end.
static AT_EXIT: AtomicPtr<Timer> = AtomicPtr::new(ptr::null_mut());

/// Runs in the kernel's call of ExitBootServices.
unsafe extern "efiapi" fn exiting(_event: Event, _context: Option<NonNull<c_void>>) {
    // SAFETY: only ever set to a timer that lives as long as this image, which stays loaded while what it started runs.
    if let Some(timer) = unsafe { AT_EXIT.load(Ordering::Relaxed).as_ref() } {
        // Nobody is left to tell.
        let _ = timer.arm(&mut Direct);
    }
}

/// Arms `timer` once more when boot services end: firmware whose own watchdog is the same hardware stops it then. Its
/// handlers run before this one, whose priority is lower.
pub(in crate::app) fn arm_at_exit(timer: &'static Timer) -> uefi::Result<Event> {
    AT_EXIT.store(ptr::from_ref(timer).cast_mut(), Ordering::Relaxed);
    // SAFETY: `exiting` is a function of this image, which stays loaded, and needs no boot services and no memory.
    unsafe {
        boot::create_event(
            EventType::SIGNAL_EXIT_BOOT_SERVICES,
            Tpl::CALLBACK,
            Some(exiting),
            None,
        )
    }
}

/// Forgets what [`arm_at_exit`] was told.
pub(in crate::app) fn forget_at_exit(event: Event) {
    AT_EXIT.store(ptr::null_mut(), Ordering::Relaxed);
    let _ = boot::close_event(event);
}
