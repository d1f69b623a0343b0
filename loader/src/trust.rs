//! The loader's own PE section that says whom it trusts.
//!
//! ```text
//! .sptrust, 8192 bytes:
//!   0  magic "SPTRUST1"
//!   8  u32   length of the text, little endian; 0 in a loader that no imager has finished
//!  12  text  JSON: product, architecture, layout, root keys
//!      zeros
//! ```
//!
//! The section is part of the file that Secure Boot signs, so whoever can sign a loader decides whom it trusts.

use core::fmt;

/// Bytes in the section.
pub const SECTION_SIZE: usize = 8192;

/// What the section begins with.
pub const MAGIC: [u8; 8] = *b"SPTRUST1";

/// Where the text begins.
const TEXT: usize = 12;

/// Why the section says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustError {
    /// The magic is not there: not one of our loaders, or a damaged one.
    Magic,
    /// The length is zero: linked, but never given keys by `imager`.
    Unfinished,
    /// The length is greater than the section.
    Length,
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrustError::Magic => "the trust section has no magic; install this loader again",
            TrustError::Unfinished => "this loader holds no keys; it must be finished by imager",
            TrustError::Length => "the trust section names a length greater than its own; install this loader again",
        })
    }
}

/// The section as it is linked, before `imager` writes into it.
#[must_use]
pub const fn unpatched() -> [u8; SECTION_SIZE] {
    let mut section = [0; SECTION_SIZE];
    let mut i = 0;
    while i < MAGIC.len() {
        section[i] = MAGIC[i];
        i += 1;
    }
    section
}

/// The text of a section.
///
/// # Errors
/// If the section was never finished or is damaged.
pub fn text(section: &[u8]) -> Result<&[u8], TrustError> {
    let rest = section.strip_prefix(&MAGIC).ok_or(TrustError::Magic)?;
    let length = rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or(TrustError::Length)?;
    let length = usize::try_from(length).map_err(|_| TrustError::Length)?;
    if length == 0 {
        return Err(TrustError::Unfinished);
    }
    let end = TEXT.checked_add(length).ok_or(TrustError::Length)?;
    section.get(TEXT..end).ok_or(TrustError::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &[u8]) -> [u8; SECTION_SIZE] {
        let mut section = unpatched();
        section[8..12].copy_from_slice(&(text.len() as u32).to_le_bytes());
        section[12..12 + text.len()].copy_from_slice(text);
        section
    }

    #[test]
    fn a_finished_section_gives_its_text() {
        assert_eq!(text(&section(b"{}")), Ok(&b"{}"[..]));
    }

    #[test]
    fn a_linked_section_is_unfinished() {
        assert_eq!(text(&unpatched()), Err(TrustError::Unfinished));
    }

    #[test]
    fn damage_is_refused() {
        let mut damaged = section(b"{}");
        damaged[0] ^= 1;
        assert_eq!(text(&damaged), Err(TrustError::Magic));
        let mut damaged = section(b"{}");
        damaged[11] = 0xff;
        assert_eq!(text(&damaged), Err(TrustError::Length));
        assert_eq!(text(&MAGIC), Err(TrustError::Length));
    }
}
