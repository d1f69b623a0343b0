//! Starting what was verified.

use alloc::format;
use alloc::string::String;

use uefi::boot;

use super::firmware;

/// A UKI that firmware has taken from our buffer and is ready to start.
pub(super) struct Image {
    handle: uefi::Handle,
}

impl Image {
    /// Has firmware load `uki`, which the caller has verified against the slot's manifest.
    ///
    /// # Errors
    /// Firmware's reason, for people.
    pub(super) fn load(uki: &[u8], secure_boot: bool) -> Result<Image, String> {
        firmware::load_image(uki, secure_boot)
            .map(|handle| Image { handle })
            .map_err(|error| format!("firmware does not load the UKI: {}", error.status()))
    }

    /// Starts it. Returns only if it came back, with what it said.
    pub(super) fn start(self) -> String {
        match boot::start_image(self.handle) {
            Ok(()) => String::from("the UKI ended without starting a kernel"),
            Err(error) => format!("the UKI ended: {}", error.status()),
        }
    }

    /// Gives it back to the firmware without starting it.
    pub(super) fn unload(self) {
        let _ = boot::unload_image(self.handle);
    }
}
