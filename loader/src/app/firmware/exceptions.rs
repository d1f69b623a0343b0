//! Exceptions of the processor. Firmware's own answer to one is to stand still, with the interrupt off that its watchdog
//! needs; ours is to restart the machine, like after a panic.
//!
//! It holds until the kernel has its own answers: in the loader, in firmware's drivers, in the stub of what is started.

use core::ffi::c_void;

use uefi::boot;
use uefi::proto::unsafe_protocol;
use uefi::{Result, Status};

use super::peek;
use crate::app::panic;

/// EFI_CPU_ARCH_PROTOCOL (PI 1.8, volume 2, section 12.3.1), as much of it as is used.
#[repr(C)]
#[unsafe_protocol("26baccb1-6f42-11d4-bce7-0080c73c8881")]
struct Cpu {
    /// FlushDataCache, EnableInterrupt, DisableInterrupt, GetInterruptState, Init.
    unused: [*const c_void; 5],
    register_interrupt_handler: unsafe extern "efiapi" fn(*const Cpu, isize, Handler) -> Status,
}

type Handler = unsafe extern "efiapi" fn(isize, *const c_void);

/// The exceptions (UEFI 2.10, section 18.2.4) that mean that something is broken: all but those of debuggers and NMI.
#[cfg(target_arch = "x86_64")]
const KINDS: [isize; 13] = [0, 4, 5, 6, 8, 10, 11, 12, 13, 14, 16, 17, 19];
/// Synchronous exceptions and SError.
#[cfg(target_arch = "aarch64")]
const KINDS: [isize; 2] = [0, 3];

/// From now on exceptions restart the machine.
///
/// # Errors
/// Firmware does not let itself be told so; what it has an answer of its own to is no error.
pub(in crate::app) fn restart_on_exceptions() -> Result {
    let cpu = peek::<Cpu>(boot::get_handle_for_protocol::<Cpu>()?)?;
    for kind in KINDS {
        // SAFETY: the protocol is firmware's own and lives as long as boot services. The handler is code of this image,
        // which firmware keeps until the machine is reset or boot services end: the loader never returns to it.
        match unsafe { (cpu.register_interrupt_handler)(&raw const *cpu, kind, raised) } {
            Status::SUCCESS | Status::ALREADY_STARTED | Status::UNSUPPORTED => {}
            error => return Err(error.into()),
        }
    }
    Ok(())
}

/// What firmware calls in place of its own answer.
unsafe extern "efiapi" fn raised(kind: isize, _context: *const c_void) {
    panic::end(format_args!("exception {kind} of the processor"))
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
