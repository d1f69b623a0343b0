//! UEFI variables: the hand-over and the Boot Loader Interface, both volatile; the floors, which only boot services can
//! read and write. What an answer of firmware's means is `boot-core`'s to say.

use alloc::format;
use alloc::string::String;

use boot_core::boot::variable::{self, Answer, FloorVariable, Write};
use boot_core::hand_over::{self, HandOver, Times};
use boot_core::layout::{self, Guid};
use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, CString16, Status, cstr16};

const STERNPOST: VariableVendor = vendor(layout::VENDOR);
const BOOT_LOADER_INTERFACE: VariableVendor = vendor(layout::BOOT_LOADER_INTERFACE);

const VOLATILE: VariableAttributes =
    VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

/// The running system may read and delete it too: whoever rules that may reset the machine, and no more is in it.
const STORED: VariableAttributes = VOLATILE.union(VariableAttributes::NON_VOLATILE);

/// [`hand_over::TIMER_FAULT_VARIABLE`], as it is needed where there is no memory.
const TIMER_FAULT: &CStr16 = cstr16!("SternpostTimerFault");

const fn vendor(guid: Guid) -> VariableVendor {
    VariableVendor(uefi::Guid::from_bytes(guid.0))
}

/// The name of a variable, as firmware wants it.
fn name(name: &str) -> uefi::Result<CString16> {
    CString16::try_from(name).map_err(|_| Status::INVALID_PARAMETER.into())
}

/// Whether Secure Boot is on, as far as it is not clearly off: images are checked against `db`.
pub(super) fn secure_boot() -> bool {
    let name = cstr16!("SecureBoot");
    ask::<1>(name, &VariableVendor::GLOBAL_VARIABLE).is_secure_boot()
}

/// What firmware answers when it is asked for a variable of at most `N` bytes.
fn ask<const N: usize>(name: &CStr16, vendor: &VariableVendor) -> Answer {
    let mut value = [0; N];
    match runtime::get_variable(name, vendor, &mut value) {
        Ok((bytes, attributes)) => Answer::Value {
            bytes: bytes.into(),
            attributes: attributes.bits(),
        },
        Err(error) => match error.status() {
            Status::NOT_FOUND => Answer::Absent,
            Status::BUFFER_TOO_SMALL => Answer::TooLong,
            status => Answer::Error(format!("{status}")),
        },
    }
}

/// Publishes the hand-over to the initrd, the longest that firmware takes. Whatever was there before is deleted first: a
/// variable that someone stored cannot become a volatile one.
pub(super) fn hand_over(hand_over: &HandOver) -> uefi::Result {
    let name = name(hand_over::VARIABLE)?;
    let mut published = Err(Status::BUFFER_TOO_SMALL.into());
    for json in hand_over.encodings() {
        let _ = runtime::delete_variable(&name, &STERNPOST);
        published = runtime::set_variable(&name, &STERNPOST, VOLATILE, &json);
        if published.is_ok() {
            break;
        }
    }
    published
}

/// The driver of the hardware watchdog of the last system that came up on this machine, as it says itself.
pub(super) fn watchdog() -> Option<String> {
    let name = name(hand_over::WATCHDOG_VARIABLE).ok()?;
    let mut value = [0; hand_over::WATCHDOG_MAX];
    let (driver, _) = runtime::get_variable(&name, &STERNPOST, &mut value).ok()?;
    core::str::from_utf8(driver).ok().map(String::from)
}

/// What firmware faulted in when a hardware timer was touched, as [`set_timer_fault`] noted it.
pub(super) fn timer_fault() -> Option<String> {
    let mut value = [0; hand_over::TIMER_FAULT_MAX];
    let (what, _) = runtime::get_variable(TIMER_FAULT, &STERNPOST, &mut value).ok()?;
    core::str::from_utf8(what).ok().map(String::from)
}

/// Notes a fault in the place of an older one. Needs no memory: it is called by the handler of exceptions.
pub(super) fn set_timer_fault(what: &str) -> uefi::Result {
    // One with other attributes would refuse the write.
    let _ = runtime::delete_variable(TIMER_FAULT, &STERNPOST);
    runtime::set_variable(TIMER_FAULT, &STERNPOST, STORED, what.as_bytes())
}

/// Publishes one variable of the Boot Loader Interface, or leaves none: nobody's boot depends on it. Whatever was there
/// before is deleted first: by one that someone stored, the running system would take the wrong ESP for the one that
/// started it.
fn boot_loader_interface(name: &CStr16, value: Option<&str>) {
    let _ = runtime::delete_variable(name, &BOOT_LOADER_INTERFACE);
    let Some(text) = value.and_then(|value| CString16::try_from(value).ok()) else {
        return;
    };
    let _ = runtime::set_variable(name, &BOOT_LOADER_INTERFACE, VOLATILE, text.as_bytes());
}

/// What firmware answers when it is asked for a floor.
pub(super) fn floor(variable: FloorVariable) -> Answer {
    match name(variable.name()) {
        Ok(name) => ask::<8>(&name, &STERNPOST),
        Err(error) => Answer::Error(format!("{}", error.status())),
    }
}

/// Writes a floor where the running system cannot reach it.
pub(super) fn write_floor(variable: FloorVariable, write: Write) -> uefi::Result {
    let name = name(variable.name())?;
    if write.replaces {
        runtime::delete_variable(&name, &STERNPOST)?;
    }
    let attributes = VariableAttributes::from_bits_retain(variable::ATTRIBUTES);
    let floor = write.floor.to_le_bytes();
    runtime::set_variable(&name, &STERNPOST, attributes, &floor)
}

/// Publishes the Boot Loader Interface variables that the running system's tools look for.
pub(super) fn publish_boot_loader_interface(version: &str, partition: Option<Guid>, times: &Times) {
    let partition = partition.map(|partition| format!("{partition}"));
    for (name, value) in [
        (
            cstr16!("LoaderInfo"),
            Some(format!("Sternpost loader {version}")),
        ),
        (
            cstr16!("LoaderTimeInitUSec"),
            Some(format!("{}", times.start_us)),
        ),
        (
            cstr16!("LoaderTimeExecUSec"),
            Some(format!("{}", times.exec_us)),
        ),
        (cstr16!("LoaderDevicePartUUID"), partition),
    ] {
        boot_loader_interface(name, value.as_deref());
    }
}
