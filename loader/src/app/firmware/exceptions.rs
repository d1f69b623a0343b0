//! Exceptions of the processor. Firmware's own answer to one is to stand still, with the interrupt off that its watchdog
//! needs; ours is to restart the machine, as after a panic.
//!
//! It holds until the kernel has its own answers: in the loader, in firmware's drivers, in the stub of what is started,
//! and for the few instructions between ExitBootServices and the kernel's own table.

use core::ffi::c_void;

use alloc::vec::Vec;
use uefi::Status;
use uefi::boot::{self, Tpl};
use uefi::proto::unsafe_protocol;
use uefi::table::system_table_raw;

use super::peek;
use crate::app::panic;

/// EFI_CPU_ARCH_PROTOCOL (PI 1.8, volume 2, section 12.3.1), as much of it as is used.
#[repr(C)]
#[unsafe_protocol("26baccb1-6f42-11d4-bce7-0080c73c8881")]
struct Cpu {
    /// FlushDataCache, EnableInterrupt, DisableInterrupt, GetInterruptState, Init.
    unused: [*const c_void; 5],
    register_interrupt_handler:
        unsafe extern "efiapi" fn(*const Cpu, isize, Option<Handler>) -> Status,
}

type Handler = unsafe extern "efiapi" fn(isize, *const u64);

/// The exceptions that mean that something is broken: of those that UEFI 2.10, section 18.2.4, names, all but the
/// debugger's and NMI; and control protection.
#[cfg(target_arch = "x86_64")]
const KINDS: [isize; 15] = [0, 4, 5, 6, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21];
/// Synchronous exceptions and SError.
#[cfg(target_arch = "aarch64")]
const KINDS: [isize; 2] = [0, 3];

/// Where the address of the instruction is in what firmware hands over (EFI_SYSTEM_CONTEXT_X64: Rip), counted in words.
#[cfg(target_arch = "x86_64")]
const INSTRUCTION: usize = 84;
/// Where the address of the instruction is in what firmware hands over (EFI_SYSTEM_CONTEXT_AARCH64: ELR).
#[cfg(target_arch = "aarch64")]
const INSTRUCTION: usize = 96;

/// From now on exceptions restart the machine, but for those that are returned: firmware keeps them for itself.
pub(in crate::app) fn restart_on_exceptions() -> Vec<isize> {
    register(Some(raised))
}

/// From now on exceptions are firmware's again, or those of the program that is started next.
pub(in crate::app) fn leave_to_firmware() {
    register(None);
}

/// Has `handler` called, or firmware's own answer given; for which kinds firmware refuses that.
fn register(handler: Option<Handler>) -> Vec<isize> {
    let cpu = boot::get_handle_for_protocol::<Cpu>().and_then(peek::<Cpu>);
    let Ok(cpu) = cpu else {
        return KINDS.into();
    };
    let mut kept = Vec::from(KINDS);
    kept.retain(|kind| {
        // SAFETY: the protocol is firmware's own and lives as long as boot services. The handler is code of this image,
        // which is never unloaded (the loader does not return), and whose memory nobody else gets before the kernel
        // has left firmware's table of handlers behind.
        let status = unsafe { (cpu.register_interrupt_handler)(&raw const *cpu, *kind, handler) };
        !status.is_success()
    });
    kept
}

/// What firmware calls in place of its own answer.
unsafe extern "efiapi" fn raised(kind: isize, context: *const u64) {
    if may_print() {
        // SAFETY: firmware hands over the context of its architecture, which is longer than this.
        let instruction = unsafe { context.add(INSTRUCTION).read() };
        panic::end(format_args!(
            "exception {kind} of the processor at {instruction:#x}"
        ));
    }
    panic::reset_at_once()
}

/// Whether firmware's console may be used: not where what faulted ran above its level, nor after boot services.
///
/// On the way interrupts are on again, so that firmware's watchdog ends what hangs while it prints.
fn may_print() -> bool {
    let Some(table) = system_table_raw() else {
        return false;
    };
    // SAFETY: the system table is the one that firmware passed to this image; firmware empties the field when boot
    // services end.
    let services = unsafe { (*table.as_ptr()).boot_services };
    if services.is_null() {
        return false;
    }
    // SAFETY: boot services are there, and the level is put back at once if it is one at which anything may be called.
    unsafe {
        let level = ((*services).raise_tpl)(Tpl::HIGH_LEVEL);
        if level > Tpl::NOTIFY {
            return false;
        }
        ((*services).restore_tpl)(level);
    }
    true
}

/// Raises one, for the test of what comes of it.
#[cfg(feature = "faults")]
pub(in crate::app) fn raise() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction does nothing but raise the exception.
    unsafe {
        core::arch::asm!("ud2")
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the instruction does nothing but raise the exception.
    unsafe {
        core::arch::asm!("udf #0")
    };
}
