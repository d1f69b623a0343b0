//! What the loader asks of the firmware that cannot be asked safely: protocols opened beside their owners, timers read
//! by instruction, the trust section that is patched after linking, the image authentication hook.
//!
//! The only module of this crate with `unsafe` in it, with what is below it. Nothing here decides anything.
#![allow(unsafe_code)]

pub(super) mod exceptions;
pub(super) mod registers;

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use alloc::vec::Vec;
use boot_core::trust::{SECTION_MAGIC, SECTION_SIZE};
use uefi::boot::{
    self, AllocateType, LoadImageSource, MemoryType, OpenProtocolAttributes, OpenProtocolParams,
    PAGE_SIZE, ScopedProtocol,
};
use uefi::proto::device_path::DevicePath;
use uefi::proto::{ProtocolPointer, unsafe_protocol};
use uefi::{Handle, Status};

/// The trust section as it is linked: the magic, then zeros. `imager` overwrites its raw data in the finished file.
#[repr(C, align(4096))]
struct TrustSection([u8; SECTION_SIZE]);

/// The section before `imager` fills it in. The magic is not zero, so that the section has raw data to fill in.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler alone")]
const fn unfilled() -> [u8; SECTION_SIZE] {
    let mut section = [0; SECTION_SIZE];
    let mut i = 0;
    while i < SECTION_MAGIC.len() {
        section[i] = SECTION_MAGIC[i];
        i += 1;
    }
    section
}

// SAFETY: the section is data of our own name that nothing else is placed in; the attribute is unsafe because a
// section may be given a meaning (constructors, code), which this one is not.
#[unsafe(link_section = ".sptrust")]
#[used]
static TRUST: TrustSection = TrustSection(unfilled());

/// The bytes of the trust section as they are in memory now.
///
/// Read volatile: the compiler knows the initial value of the static and would otherwise fold it into the code.
pub(super) fn trust_section() -> Vec<u8> {
    let start = (&raw const TRUST.0).cast::<u8>();
    (0..SECTION_SIZE)
        // SAFETY: `i` is below the size of the array that `start` points to, and the array lives as long as the image.
        .map(|i| unsafe { ptr::read_volatile(start.add(i)) })
        .collect()
}

/// The raw value of the counter that runs from reset at a constant rate.
#[cfg(target_arch = "x86_64")]
pub(super) fn ticks() -> u64 {
    // SAFETY: reads the time-stamp counter; every x86_64 processor has it, and firmware does not set CR4.TSD.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The raw value of the counter that runs from reset at a constant rate.
#[cfg(target_arch = "aarch64")]
pub(super) fn ticks() -> u64 {
    let value: u64;
    // SAFETY: reads the virtual counter, which exists on every ARMv8 processor and is readable at EL1 and EL2.
    unsafe {
        core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack))
    };
    value
}

/// Counter ticks in a second, where the processor says it; `None` where it must be measured.
#[cfg(target_arch = "x86_64")]
pub(super) fn ticks_per_second() -> Option<u64> {
    None
}

/// Counter ticks in a second, where the processor says it; `None` where it must be measured.
#[cfg(target_arch = "aarch64")]
pub(super) fn ticks_per_second() -> Option<u64> {
    let value: u64;
    // SAFETY: reads the counter's frequency register, readable at EL1 and EL2.
    unsafe { core::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack)) };
    Some(value).filter(|hz| *hz > 0)
}

/// The firmware's monotonic counter, whose upper half firmware raises with every reset; 0 where it fails.
pub(super) fn monotonic_count() -> u64 {
    let Some(table) = uefi::table::system_table_raw() else {
        return 0;
    };
    let mut count = 0;
    // SAFETY: the system table is the one that firmware passed to this image and boot services are still active: the
    // loader never exits them.
    let status =
        unsafe { ((*(*table.as_ptr()).boot_services).get_next_monotonic_count)(&mut count) };
    if status.is_success() { count } else { 0 }
}

/// Whether there is a console to write to: on a machine without one, the `uefi` crate would panic.
pub(super) fn has_console() -> bool {
    uefi::table::system_table_raw().is_some_and(|table| {
        // SAFETY: the system table is the one that firmware passed to this image; the field is only compared.
        unsafe { !(*table.as_ptr()).stdout.is_null() }
    })
}

/// Memory in whole pages, for transfers from a disk. Freed when dropped.
pub(super) struct Pages {
    start: NonNull<u8>,
    pages: usize,
}

impl Pages {
    /// Allocates room for at least `bytes` bytes, zeroed.
    pub(super) fn new(bytes: usize) -> Result<Pages, uefi::Error> {
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        let start = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, pages)?;
        // SAFETY: the firmware has just given us these pages; nothing else refers to them.
        unsafe { ptr::write_bytes(start.as_ptr(), 0, pages * PAGE_SIZE) };
        Ok(Pages { start, pages })
    }
}

impl core::ops::Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the pages are ours until dropped and were initialised in `new`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.pages * PAGE_SIZE) }
    }
}

impl core::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.pages * PAGE_SIZE) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by `allocate_pages` with this count, and no reference outlives `self`. A failure leaks.
        let _ = unsafe { boot::free_pages(self.start, self.pages) };
    }
}

/// Opens a protocol without disturbing whoever has it open: an exclusive open would disconnect the partition driver
/// and the file system of the disk that we were loaded from.
pub(super) fn peek<P: ProtocolPointer + ?Sized>(handle: Handle) -> uefi::Result<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: the protocols opened this way belong to drivers of hardware that stays connected while the loader runs:
    // it runs at TPL_APPLICATION, alone, and never disconnects a controller.
    unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }
}

/// Fills `buffer` from the firmware's random number generator; `false` if there is none or it fails.
pub(super) fn random(buffer: &mut [u8]) -> bool {
    let Ok(handle) = boot::get_handle_for_protocol::<uefi::proto::rng::Rng>() else {
        return false;
    };
    peek::<uefi::proto::rng::Rng>(handle).is_ok_and(|mut rng| rng.get_rng(None, buffer).is_ok())
}

/// EFI_SECURITY2_ARCH_PROTOCOL (PI 1.8, volume 2, section 12.9.2): what LoadImage asks whether an image may be loaded.
#[repr(C)]
#[unsafe_protocol("94ab2f58-1438-4ef1-9152-18941a3a0e68")]
struct Security2 {
    file_authentication: FileAuthentication,
}

type FileAuthentication = unsafe extern "efiapi" fn(
    *const Security2,
    *const c_void,
    *const c_void,
    usize,
    bool,
) -> Status;

static VERIFIED: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static VERIFIED_LENGTH: AtomicUsize = AtomicUsize::new(0);
static ORIGINAL: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Permits the one buffer that was verified against the slot's manifest; everything else is the firmware's decision.
unsafe extern "efiapi" fn permit_verified(
    this: *const Security2,
    path: *const c_void,
    buffer: *const c_void,
    size: usize,
    boot_policy: bool,
) -> Status {
    let verified = VERIFIED.load(Ordering::Relaxed);
    if !verified.is_null()
        && ptr::eq(buffer, verified)
        && size == VERIFIED_LENGTH.load(Ordering::Relaxed)
    {
        return Status::SUCCESS;
    }
    let original = ORIGINAL.load(Ordering::Relaxed);
    if original.is_null() {
        return Status::SECURITY_VIOLATION;
    }
    // SAFETY: `ORIGINAL` is only ever set to the protocol's own function of this type.
    let original: FileAuthentication = unsafe { core::mem::transmute(original) };
    // SAFETY: passes on the arguments that the firmware gave.
    unsafe { original(this, path, buffer, size, boot_policy) }
}

/// Starts a program as if firmware had found it at `path`: under Secure Boot it has to be signed for firmware. Our
/// answers to exceptions give way to its own.
///
/// # Errors
/// Firmware does not load it, or what it came back with.
pub(super) fn start_program(program: &[u8], path: &[u8]) -> uefi::Result {
    let path: &DevicePath = path
        .try_into()
        .map_err(|_| uefi::Error::from(Status::INVALID_PARAMETER))?;
    let source = LoadImageSource::FromBuffer {
        buffer: program,
        file_path: Some(path),
    };
    let image = boot::load_image(boot::image_handle(), source)?;
    exceptions::leave_to_firmware();
    let came_back = boot::start_image(image);
    exceptions::restart_on_exceptions();
    came_back
}

/// Loads `image`, which the caller has verified, and gives its handle.
///
/// With neither device path nor device, so that the image finds no file beside the ESP to pick up. Under Secure Boot
/// (`override_authentication`) the image carries no signature that `db` knows: the firmware's check is replaced for
/// exactly this buffer and put back before this returns.
pub(super) fn load_image(image: &[u8], override_authentication: bool) -> uefi::Result<Handle> {
    let source = LoadImageSource::FromBuffer {
        buffer: image,
        file_path: None,
    };
    if !override_authentication {
        return boot::load_image(boot::image_handle(), source);
    }
    let handle = boot::get_handle_for_protocol::<Security2>()?;
    let mut security = peek::<Security2>(handle)?;
    let original = security.file_authentication;
    ORIGINAL.store(original as *mut c_void, Ordering::Relaxed);
    VERIFIED_LENGTH.store(image.len(), Ordering::Relaxed);
    VERIFIED.store(image.as_ptr().cast_mut().cast(), Ordering::Relaxed);
    security.file_authentication = permit_verified;
    let loaded = boot::load_image(boot::image_handle(), source);
    security.file_authentication = original;
    VERIFIED.store(ptr::null_mut(), Ordering::Relaxed);
    loaded
}
