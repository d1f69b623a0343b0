//! The loader's hand-over: a volatile EFI variable. One that was stored is not the loader's of this start.

use std::fs;
use std::path::Path;

use boot_core::hand_over;
use boot_core::layout::VENDOR;
use rustix::mount::{MountFlags, mount};

use crate::failure::{Context, Failure};

/// Where the kernel shows EFI variables.
const EFIVARS: &str = "/sys/firmware/efi/efivars";

const NON_VOLATILE: u32 = 1;
const RUNTIME: u32 = 4;

/// Why a hand-over is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Too short to have attributes.
    #[error("it is too short")]
    Short,
    /// It survives restarts, so anybody may have left it there.
    #[error(
        "it is stored in non-volatile memory (attributes {0:#x}), so the loader of this start did not write it"
    )]
    Stored(u32),
}

/// Splits what efivarfs shows, attributes and value. Pure.
pub fn value(raw: &[u8]) -> Result<&[u8], Refused> {
    let (attributes, value) = raw.split_first_chunk::<4>().ok_or(Refused::Short)?;
    let attributes = u32::from_le_bytes(*attributes);
    if attributes & NON_VOLATILE != 0 || attributes & RUNTIME == 0 {
        return Err(Refused::Stored(attributes));
    }
    Ok(value)
}

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
    value(&raw)
        .map(<[u8]>::to_vec)
        .context("reading the loader's hand-over, the EFI variable", variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volatile_variable_counts() {
        assert_eq!(value(&[6, 0, 0, 0, b'{']), Ok(&b"{"[..]));
        assert_eq!(value(&[7, 0, 0, 0, b'{']), Err(Refused::Stored(7)));
        assert_eq!(value(&[2, 0, 0, 0, b'{']), Err(Refused::Stored(2)));
        assert_eq!(value(&[6, 0]), Err(Refused::Short));
    }
}
