//! What Linux shows of an EFI variable (efivarfs): four bytes of attributes, then the value.

use crate::bytes::u32_at;

const NON_VOLATILE: u32 = 1;
const RUNTIME: u32 = 4;

/// Why a variable is not the loader's of this start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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

/// The value of a variable that the loader left in this start. The running system cannot make one like it: what it
/// makes is stored.
pub fn of_this_start(raw: &[u8]) -> Result<&[u8], Refused> {
    let (_, value) = raw.split_at_checked(4).ok_or(Refused::Short)?;
    let attributes = u32_at(raw, 0);
    if attributes & NON_VOLATILE != 0 || attributes & RUNTIME == 0 {
        return Err(Refused::Stored(attributes));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volatile_variable_counts() {
        assert_eq!(of_this_start(&[6, 0, 0, 0, b'{']), Ok(&b"{"[..]));
        assert_eq!(of_this_start(&[7, 0, 0, 0, b'{']), Err(Refused::Stored(7)));
        assert_eq!(of_this_start(&[2, 0, 0, 0, b'{']), Err(Refused::Stored(2)));
        assert_eq!(of_this_start(&[6, 0]), Err(Refused::Short));
    }
}
