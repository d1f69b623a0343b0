//! Measures what is started into the TPM, where firmware does not: its own check of an image measures it too, and under
//! Secure Boot the loader takes that check's place (`firmware::load_image`). Elsewhere firmware measures, and a second
//! time would be one too many.

use alloc::format;
use alloc::string::String;

use boot_core::pe::EfiProgram;
use uefi::boot;
use uefi::proto::tcg::v2::{HashLogExtendEventFlags, PcrEventInputs, Tcg};
use uefi::proto::tcg::{EventType, PcrIndex};

use super::firmware::peek;

/// What firmware measures programs into that it starts (TCG PC Client Platform Firmware Profile).
const BOOT_PROGRAMS: PcrIndex = PcrIndex(4);

/// Measures `image` as firmware would have. Nothing to do without a TPM.
///
/// # Errors
/// What went wrong, for a person.
pub(super) fn program(image: &[u8]) -> Result<(), String> {
    let Ok(handle) = boot::get_handle_for_protocol::<Tcg>() else {
        return Ok(());
    };
    let refused = |error: uefi::Error| format!("not measured: {}", error.status());
    let mut tpm = peek::<Tcg>(handle).map_err(refused)?;
    if !tpm.get_capability().map_err(refused)?.tpm_present() {
        return Ok(());
    }
    let event = EfiProgram::parse(image)
        .and_then(|program| program.load_event(image.as_ptr().addr() as u64))
        .ok_or("not measured: it is no UEFI application")?;
    let kind = EventType::EFI_BOOT_SERVICES_APPLICATION;
    let inputs = PcrEventInputs::new_in_box(BOOT_PROGRAMS, kind, &event).map_err(refused)?;
    tpm.hash_log_extend_event(HashLogExtendEventFlags::PE_COFF_IMAGE, image, &inputs)
        .map_err(refused)
}
