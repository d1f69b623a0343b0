//! What the loader asks of processor and firmware that cannot be asked safely: protocols opened beside their owners,
//! memory in pages, registers, exceptions, the trust section that is patched after linking, the image authentication
//! hook.
//!
//! The only module of this crate with `unsafe` in it: the workspace's lints deny it everywhere else. One thing is decided
//! here, under Secure Boot: [`permit_verified`] lets the firmware load the one buffer that was verified. Which registers
//! of a hardware timer are written, and with what, is `hardware_timer`'s to say from what the firmware says of its own
//! hardware, and nothing can check that the firmware tells the truth. It is asked only on a machine on which a running
//! system has driven that very timer (`app::timer`).
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use boot_core::trust::{SECTION_MAGIC, SECTION_SIZE};
use hardware_timer::{Place, Register, Registers, Timer, Unusable, Width};
use uefi::boot::{
    self, AllocateType, EventType, LoadImageSource, MemoryType, OpenProtocolAttributes,
    OpenProtocolParams, PAGE_SIZE, ScopedProtocol, Tpl,
};
use uefi::proto::device_path::DevicePath;
use uefi::proto::{ProtocolPointer, unsafe_protocol};
use uefi::table::system_table_raw;
use uefi::{Event, Handle, Status};

use super::{panic, variables};

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
pub(super) fn ticks() -> u64 {
    // SAFETY: reads the time-stamp counter; every x86_64 processor has it, and firmware does not set CR4.TSD.
    #[cfg(target_arch = "x86_64")]
    let value = unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(target_arch = "aarch64")]
    let value: u64;
    // SAFETY: reads the virtual counter, which exists on every ARMv8 processor and is readable at EL1 and EL2.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nomem, nostack))
    };
    value
}

/// Counter ticks in a second, where the processor says it; none where it must be measured.
pub(super) fn ticks_per_second() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    let value = 0;
    #[cfg(target_arch = "aarch64")]
    let value: u64;
    // SAFETY: reads the counter's frequency register, readable at EL1 and EL2.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack))
    };
    Some(value).filter(|hz| *hz > 0)
}

/// The firmware's monotonic counter, whose upper half firmware raises with every reset; 0 where it fails.
pub(super) fn monotonic_count() -> u64 {
    let Some(table) = system_table_raw() else {
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
    system_table_raw().is_some_and(|table| {
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
    leave_exceptions_to_firmware();
    let came_back = boot::start_image(image);
    restart_on_exceptions();
    came_back
}

/// Loads `image`, which the caller has verified, and gives its handle.
///
/// With no load options, so that nothing is added to its command line, and neither device path nor device, so that the
/// image finds no file beside itself on the ESP to pick up. Under Secure Boot (`override_authentication`) the image
/// carries no signature that `db` knows: the firmware's check is replaced for exactly this buffer and put back before
/// this returns.
pub(super) fn load_image(image: &[u8], override_authentication: bool) -> uefi::Result<Handle> {
    let source = LoadImageSource::FromBuffer {
        buffer: image,
        file_path: None,
    };
    if !override_authentication {
        return boot::load_image(boot::image_handle(), source);
    }
    // Without it there is no check to replace: Secure Boot, of which nothing was known, may be off.
    let Ok(handle) = boot::get_handle_for_protocol::<Security2>() else {
        return boot::load_image(boot::image_handle(), source);
    };
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

/// From now on exceptions of the processor restart the machine, but for those that are returned: firmware keeps them
/// for itself.
///
/// Firmware's own answer is to stand still, with the interrupt off that its watchdog needs. Ours holds until the kernel
/// has its own: in the loader, in firmware's drivers, in the stub of what is started, and for the few instructions
/// between ExitBootServices and the kernel's own table.
pub(super) fn restart_on_exceptions() -> Vec<isize> {
    register(Some(raised))
}

/// From now on exceptions are firmware's again, or those of the program that is started next.
fn leave_exceptions_to_firmware() {
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

/// What a fault is noted as while [`NOTING`]; kept for as long as the loader runs.
static NOTED_AS: AtomicPtr<String> = AtomicPtr::new(ptr::null_mut());
static NOTING: AtomicBool = AtomicBool::new(false);

/// Says what [`with_faults_noted`] writes.
pub(super) fn note_faults_as(what: String) {
    NOTED_AS.store(Box::into_raw(Box::new(what)), Ordering::Relaxed);
}

/// Does `work`, which touches hardware that may not be there. An exception of the processor in it is noted in a variable,
/// for the next start to leave that alone.
pub(super) fn with_faults_noted<T>(work: impl FnOnce() -> T) -> T {
    NOTING.store(true, Ordering::SeqCst);
    let done = work();
    // What a device answers with an SError may come late.
    // SAFETY: waits until accesses are complete; touches nothing.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        core::arch::asm!("dsb sy", "isb", options(nostack, preserves_flags))
    };
    NOTING.store(false, Ordering::SeqCst);
    done
}

/// Notes that there was a fault, if it is one to be noted; a second one while it is being noted is not.
fn note_fault() {
    if !NOTING.swap(false, Ordering::SeqCst) {
        return;
    }
    // SAFETY: only ever set to a string that is never freed.
    if let Some(what) = unsafe { NOTED_AS.load(Ordering::Relaxed).as_ref() } {
        // Where it cannot be stored, the start that has been counted is all there is.
        let _ = variables::set_timer_fault(what);
    }
}

/// What firmware calls in place of its own answer.
unsafe extern "efiapi" fn raised(kind: isize, context: *const u64) {
    if may_print() {
        note_fault();
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
pub(super) fn raise_exception() {
    // SAFETY: the instruction does nothing but raise the exception.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("ud2");
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("udf #0");
    }
}

/// Memory and ports.
pub(super) struct Direct;

/// Does something with the type of a register's width.
macro_rules! by_width {
    ($width:expr, $type:ident => $do:expr) => {
        match $width {
            Width::Byte => {
                type $type = u8;
                $do
            }
            Width::Word => {
                type $type = u16;
                $do
            }
            Width::Double => {
                type $type = u32;
                $do
            }
        }
    };
}
pub(super) use by_width;

impl Registers for Direct {
    #[allow(
        clippy::useless_conversion,
        reason = "one of the widths is that of u32"
    )]
    fn read(&mut self, register: Register) -> Option<u32> {
        match register.place {
            Place::Memory(address) => {
                let at = aligned(address, register.width)?;
                // SAFETY: the address is aligned and is one that the firmware names as a register of its hardware;
                // boot services map all of it one to one. Reading a timer's register has no effect on memory.
                Some(unsafe {
                    by_width!(register.width, T => u32::from(at.cast::<T>().read_volatile()))
                })
            }
            Place::Io(port) => port_read(port, register.width),
            Place::Config(_) => None,
        }
    }

    fn write(&mut self, register: Register, value: u32) -> bool {
        match register.place {
            Place::Memory(address) => aligned(address, register.width).is_some_and(|at| {
                // SAFETY: as for reading; and nothing of ours lies in a timer's registers.
                unsafe {
                    by_width!(register.width, T => at.cast::<T>().write_volatile(value as T))
                };
                true
            }),
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
    macro_rules! read {
        ($type:ty, $instruction:literal, $register:tt) => {{
            let value: $type;
            // SAFETY: UEFI applications run with all ports open, and reading a timer's port touches no memory.
            unsafe {
                core::arch::asm!($instruction, in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            Some(u32::from(value))
        }};
    }
    match width {
        Width::Byte => read!(u8, "in al, dx", "al"),
        Width::Word => read!(u16, "in ax, dx", "ax"),
        Width::Double => read!(u32, "in eax, dx", "eax"),
    }
}

#[cfg(target_arch = "x86_64")]
fn port_write(port: u16, width: Width, value: u32) -> bool {
    macro_rules! write {
        ($type:ty, $instruction:literal, $register:tt) => {
            // SAFETY: UEFI applications run with all ports open, and writing a timer's port touches no memory.
            unsafe {
                core::arch::asm!($instruction, in("dx") port, in($register) value as $type,
                    options(nomem, nostack, preserves_flags));
            }
        };
    }
    match width {
        Width::Byte => write!(u8, "out dx, al", "al"),
        Width::Word => write!(u16, "out dx, ax", "ax"),
        Width::Double => write!(u32, "out dx, eax", "eax"),
    }
    true
}

/// There are no ports.
#[cfg(target_arch = "aarch64")]
fn port_read(_: u16, _: Width) -> Option<u32> {
    None
}

/// There are no ports.
#[cfg(target_arch = "aarch64")]
fn port_write(_: u16, _: Width, _: u32) -> bool {
    false
}

/// A copy of memory at `address`, which the firmware's tables name.
pub(super) fn memory(address: u64, length: usize) -> Result<Vec<u8>, Unusable> {
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
pub(super) fn arm_at_exit(timer: &'static Timer) -> uefi::Result<Event> {
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
pub(super) fn forget_at_exit(event: Event) {
    AT_EXIT.store(ptr::null_mut(), Ordering::Relaxed);
    let _ = boot::close_event(event);
}
