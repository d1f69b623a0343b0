//! The loader's hand-over: a volatile EFI variable. One that was stored is not the loader's of this start.

use std::fs;
use std::path::Path;

use boot_core::layout::VENDOR;
use boot_core::{efi_variable, hand_over};
use rustix::mount::{MountFlags, mount};

use crate::failure::{Context, Failure};

/// Where the kernel shows EFI variables.
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// Reads the hand-over's bytes.
///
/// # Errors
/// When there is none, or it is not volatile.
pub fn read() -> Result<Vec<u8>, Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("efivarfs", EFIVARS, "efivarfs", flags, c"").context("mounting", EFIVARS)?;
    let variable = format!("{}-{VENDOR}", hand_over::VARIABLE);
    let raw = fs::read(Path::new(EFIVARS).join(&variable))
        .context(
            "reading the loader's hand-over, the EFI variable",
            &variable,
        )
        .map_err(|failure| {
            failure.next(
                "only the Sternpost loader can start this kernel; the machine restarts into it",
            )
        })?;
    efi_variable::of_this_start(&raw)
        .map(<[u8]>::to_vec)
        .context("reading the loader's hand-over, the EFI variable", variable)
}
