//! What `state`'s superblock says before it is mounted. Pure.
//!
//! Source: the kernel's `fs/ext4/ext4.h`, `struct ext4_super_block`, 1024 bytes at offset 1024.

/// Bytes of the device needed to parse: up to the superblock's end.
pub const NEEDED: usize = 2048;

const MAGIC: u16 = 0xEF53;
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
const INCOMPAT_RECOVER: u32 = 4;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// What matters of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Blocks of the filesystem.
    pub blocks: u64,
    /// Unmounted cleanly, no error noted, no journal to replay, nothing orphaned.
    pub clean: bool,
}

/// Why there is no ext4.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotExt4 {
    /// No superblock.
    #[error("no ext4 superblock")]
    Magic,
    /// Encrypted.
    #[error("it is encrypted (LUKS), which this version cannot open")]
    Luks,
    /// A number that no ext4 has.
    #[error("the ext4 superblock makes no sense")]
    Nonsense,
}

/// Parses the first [`NEEDED`] bytes of a partition.
///
/// # Errors
/// When they hold no ext4.
pub fn parse(start: &[u8]) -> Result<Superblock, NotExt4> {
    if start.starts_with(b"LUKS\xba\xbe") {
        return Err(NotExt4::Luks);
    }
    let u16_at = |at: usize| {
        Some(u16::from_le_bytes(
            start.get(1024 + at..1024 + at + 2)?.try_into().ok()?,
        ))
    };
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(
            start.get(1024 + at..1024 + at + 4)?.try_into().ok()?,
        ))
    };
    let fields = || {
        Some((
            u16_at(56)?,
            u16_at(58)?,
            u32_at(4)?,
            u32_at(24)?,
            u32_at(96)?,
            u32_at(100)?,
            u32_at(336)?,
        ))
    };
    let (magic, state, low, log, incompat, ro_compat, high) = fields().ok_or(NotExt4::Magic)?;
    if magic != MAGIC {
        return Err(NotExt4::Magic);
    }
    if log > 6 {
        return Err(NotExt4::Nonsense);
    }
    let high = if incompat & INCOMPAT_64BIT == 0 {
        0
    } else {
        u64::from(high)
    };
    Ok(Superblock {
        block_size: 1024 << log,
        blocks: u64::from(low) | (high << 32),
        clean: state & STATE_VALID != 0
            && state & STATE_ERROR == 0
            && incompat & INCOMPAT_RECOVER == 0
            && ro_compat & RO_COMPAT_ORPHAN_PRESENT == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Vec<u8> {
        let mut bytes = vec![0; NEEDED];
        bytes[1024 + 4..1024 + 8].copy_from_slice(&65_536u32.to_le_bytes());
        bytes[1024 + 24] = 2;
        bytes[1024 + 56..1024 + 58].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[1024 + 58] = 1;
        bytes
    }

    #[test]
    fn size_and_cleanliness() {
        let mut bytes = superblock();
        let parsed = parse(&bytes).unwrap();
        assert_eq!(
            (parsed.block_size, parsed.blocks, parsed.clean),
            (4096, 65_536, true)
        );
        bytes[1024 + 96] = 4;
        assert!(!parse(&bytes).unwrap().clean, "a journal to replay");
        bytes[1024 + 96] = 0;
        bytes[1024 + 58] = 3;
        assert!(!parse(&bytes).unwrap().clean, "an error noted");
    }

    #[test]
    fn what_is_not_ext4_is_named() {
        assert_eq!(parse(&[]), Err(NotExt4::Magic));
        assert_eq!(parse(&vec![0; NEEDED]), Err(NotExt4::Magic));
        let mut luks = vec![0; NEEDED];
        luks[..6].copy_from_slice(b"LUKS\xba\xbe");
        assert_eq!(parse(&luks), Err(NotExt4::Luks));
        let mut wrong = superblock();
        wrong[1024 + 24] = 200;
        assert_eq!(parse(&wrong), Err(NotExt4::Nonsense));
    }
}
