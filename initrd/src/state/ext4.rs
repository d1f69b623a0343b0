//! What `state`'s superblock says before it is mounted. Pure.
//!
//! Source: the kernel's `fs/ext4/ext4.h`, `struct ext4_super_block`, 1024 bytes at offset 1024.

use std::collections::BTreeSet;
use std::iter;

use crc::{Algorithm, CRC_32_ISCSI, Crc};

/// Bytes of the device needed to parse: up to the superblock's end.
pub const NEEDED: usize = 2048;

const MAGIC: u16 = 0xEF53;
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
const INCOMPAT_RECOVER: u32 = 4;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// Where the superblock's checksum is, which covers what is before it.
const CHECKSUM_AT: usize = 1020;
/// Linux's crc32c: the usual one without its last step.
const CRC32C: Crc<u32> = Crc::<u32>::new(&Algorithm {
    xorout: 0,
    check: 0x1cf9_6d7c,
    ..CRC_32_ISCSI
});

/// Size of the blocks that [`copies`] are counted in: what `imager` and `bootctl` make `state` with.
pub const BLOCK: u64 = 4096;
/// Blocks of one group, as many as a block has bits.
const GROUP: u64 = BLOCK * 8;

/// Blocks in which copies of the superblock lie in a filesystem of `size` bytes: the first of group 1 and of those whose
/// number is a power of 3, 5 or 7 (`sparse_super`).
#[must_use]
pub fn copies(size: u64) -> BTreeSet<u64> {
    let powers = |base: u64| iter::successors(Some(base), move |power| power.checked_mul(base));
    let groups = (size / BLOCK).div_ceil(GROUP);
    [3, 5, 7]
        .into_iter()
        .flat_map(|base| powers(base).take_while(|group| *group < groups))
        .chain((groups > 1).then_some(1))
        .map(|group| group * GROUP)
        .collect()
}

/// What matters of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Size of a block in bytes.
    pub block_size: u64,
    /// Blocks of the filesystem.
    pub blocks: u64,
    /// It was not unmounted, and its journal is to be replayed.
    pub replay: bool,
    state: u16,
    mounts: u16,
    mounts_max: i16,
    checked: u32,
    interval: u32,
}

/// Why a filesystem is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The kernel noted an error in it.
    Error,
    /// It has no journal and was not unmounted, or a check of it did not end.
    NotValid,
    /// Mounted as often as its superblock allows between two checks.
    Mounts,
    /// As much time has gone by as its superblock allows between two checks.
    Interval,
}

impl std::fmt::Display for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Error => "the kernel noted an error in it",
            Self::NotValid => "it is marked as not valid",
            Self::Mounts => "it has been mounted often since its last check",
            Self::Interval => "its last check was long ago",
        })
    }
}

impl Superblock {
    /// Whether it has to be checked before it is mounted; `now` in seconds since 1970.
    ///
    /// The same questions as `e2fsck -p` asks (`check_if_skip` in e2fsprogs' `e2fsck/unix.c`). Where all answers are
    /// no, e2fsck replays the journal if need be and looks no further, which the kernel does as well when it mounts,
    /// with the same code and the same checksums; only it does not cost a second.
    #[must_use]
    pub fn check_due(&self, now: u64) -> Option<Due> {
        let since = now.checked_sub(self.checked.into());
        if self.state & STATE_ERROR != 0 {
            Some(Due::Error)
        } else if self.state & STATE_VALID == 0 {
            // With a journal the kernel leaves the flag alone; e2fsck takes it away while it repairs.
            Some(Due::NotValid)
        } else if self.mounts_max > 0 && i32::from(self.mounts) >= i32::from(self.mounts_max) {
            Some(Due::Mounts)
        } else if self.interval != 0 && since.is_some_and(|since| since >= self.interval.into()) {
            Some(Due::Interval)
        } else {
            None
        }
    }
}

/// Why there is no ext4.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotExt4 {
    /// No superblock.
    #[error("no ext4 superblock")]
    Magic,
    /// Torn or damaged.
    #[error("the ext4 superblock's checksum does not match")]
    Checksum,
    /// A number that no ext4 has.
    #[error("the ext4 superblock makes no sense")]
    Nonsense,
}

/// Parses the first [`NEEDED`] bytes of a partition.
pub fn parse(start: &[u8]) -> Result<Superblock, NotExt4> {
    parse_as(start, true)
}

/// The same of a filesystem that is mounted: the kernel changes numbers in the superblock that it has in its cache, and
/// computes the checksum when it writes it.
pub fn parse_mounted(start: &[u8]) -> Result<Superblock, NotExt4> {
    parse_as(start, false)
}

/// Parses a copy of the superblock, at the beginning of one of the blocks that [`copies`] names.
///
/// # Errors
/// When there is none, or it is damaged.
pub fn parse_copy(block: &[u8]) -> Result<Superblock, NotExt4> {
    parse_superblock(block, true)
}

fn parse_as(start: &[u8], has_checksum: bool) -> Result<Superblock, NotExt4> {
    parse_superblock(start.get(1024..).unwrap_or_default(), has_checksum)
}

fn parse_superblock(bytes: &[u8], has_checksum: bool) -> Result<Superblock, NotExt4> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let superblock = || {
        let incompat = u32_at(96)?;
        let low = u32_at(4)?;
        let high = if incompat & INCOMPAT_64BIT == 0 {
            0
        } else {
            u32_at(336)?
        };
        Some(Superblock {
            block_size: 1024_u64.checked_shl(u32_at(24)?).unwrap_or(0),
            blocks: u64::from(low) | (u64::from(high) << 32),
            replay: incompat & INCOMPAT_RECOVER != 0,
            state: u16_at(58)?,
            mounts: u16_at(52)?,
            mounts_max: i16::from_le_bytes(u16_at(54)?.to_le_bytes()),
            checked: u32_at(64)?,
            interval: u32_at(68)?,
        })
    };
    if u16_at(56) != Some(MAGIC) {
        return Err(NotExt4::Magic);
    }
    let checked = u32_at(100).is_some_and(|features| features & RO_COMPAT_METADATA_CSUM != 0);
    if checked && has_checksum {
        let covered = bytes.get(..CHECKSUM_AT);
        if u32_at(CHECKSUM_AT) != covered.map(|bytes| CRC32C.checksum(bytes)) {
            return Err(NotExt4::Checksum);
        }
    }
    match superblock() {
        Some(found) if (1024..=65_536).contains(&found.block_size) => Ok(found),
        _ => Err(NotExt4::Nonsense),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3600;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[1024 + at..1024 + at + value.len()].copy_from_slice(value);
    }

    fn superblock() -> Vec<u8> {
        let mut bytes = vec![0; NEEDED];
        put(&mut bytes, 4, &65_536u32.to_le_bytes());
        put(&mut bytes, 24, &[2]);
        put(&mut bytes, 56, &MAGIC.to_le_bytes());
        put(&mut bytes, 58, &[1]);
        // As mke2fs leaves it: no limit of mounts, no interval.
        put(&mut bytes, 54, &(-1i16).to_le_bytes());
        bytes
    }

    fn due(bytes: &[u8], now: u64) -> Option<Due> {
        parse(bytes).unwrap().check_due(now)
    }

    #[test]
    fn size_and_cleanliness() {
        let parsed = parse(&superblock()).unwrap();
        assert_eq!((parsed.block_size, parsed.blocks), (4096, 65_536));
        assert!(!parsed.replay);
        assert_eq!(parsed.check_due(0), None);
    }

    #[test]
    fn a_pulled_plug_costs_a_replay_and_no_check() {
        let mut bytes = superblock();
        put(&mut bytes, 96, &[4]);
        put(&mut bytes, 52, &1000u16.to_le_bytes());
        assert!(parse(&bytes).unwrap().replay);
        assert_eq!(due(&bytes, 50 * YEAR), None);
    }

    #[test]
    fn errors_and_a_repair_that_did_not_end_are_checked() {
        for (state, expected) in [(3, Due::Error), (2, Due::Error), (0, Due::NotValid)] {
            let mut bytes = superblock();
            put(&mut bytes, 58, &[state]);
            assert_eq!(due(&bytes, 0), Some(expected), "state {state}");
        }
    }

    #[test]
    fn the_superblocks_own_limits_are_kept() {
        let mut bytes = superblock();
        put(&mut bytes, 54, &20i16.to_le_bytes());
        put(&mut bytes, 52, &19u16.to_le_bytes());
        assert_eq!(due(&bytes, 0), None);
        put(&mut bytes, 52, &20u16.to_le_bytes());
        assert_eq!(due(&bytes, 0), Some(Due::Mounts));

        let mut bytes = superblock();
        let checked = u32::try_from(50 * YEAR).unwrap();
        put(&mut bytes, 64, &checked.to_le_bytes());
        put(&mut bytes, 68, &1000u32.to_le_bytes());
        assert_eq!(due(&bytes, 50 * YEAR + 999), None);
        assert_eq!(due(&bytes, 50 * YEAR + 1000), Some(Due::Interval));
        assert_eq!(
            due(&bytes, 3),
            None,
            "a clock that stands in the past says nothing"
        );
    }

    #[test]
    fn what_is_not_ext4_is_named() {
        assert_eq!(parse(&[]), Err(NotExt4::Magic));
        assert_eq!(parse(&vec![0; NEEDED]), Err(NotExt4::Magic));
        let mut wrong = superblock();
        wrong[1024 + 24] = 200;
        assert_eq!(parse(&wrong), Err(NotExt4::Nonsense));
    }

    /// What mke2fs 1.47.0 wrote.
    const MADE: &[u8] = include_bytes!("../../tests/superblock.bin");

    #[test]
    fn a_flipped_bit_is_noticed_where_there_is_a_checksum() {
        let mut bytes = vec![0; 1024];
        bytes.extend_from_slice(MADE);
        let parsed = parse(&bytes).unwrap();
        assert_eq!((parsed.block_size, parsed.blocks), (4096, 65_536));
        bytes[1024 + 700] ^= 1;
        assert_eq!(parse(&bytes), Err(NotExt4::Checksum));
        // Mounted, the kernel is ahead of its checksum.
        assert_eq!(parse_mounted(&bytes), Ok(parsed));
    }

    #[test]
    fn copies_lie_where_mke2fs_puts_them() {
        let first = |size| copies(size).into_iter().take(6).collect::<Vec<_>>();
        assert!(first(128 << 20).is_empty());
        assert_eq!(first(256 << 20), [32_768]);
        assert_eq!(first((384 << 20) + 4096), [32_768, 98_304]);
        // As `mke2fs -n` lists them.
        let large = copies(200 << 30);
        assert_eq!(
            large.iter().copied().skip(4).collect::<Vec<_>>(),
            [
                294_912, 819_200, 884_736, 1_605_632, 2_654_208, 4_096_000, 7_962_624, 11_239_424,
                20_480_000, 23_887_872
            ]
        );
        assert!(copies(u64::MAX).len() < 80);
    }

    #[test]
    fn a_copy_is_told_from_what_is_none() {
        assert_eq!(parse_copy(MADE).unwrap().blocks, 65_536);
        let mut damaged = MADE.to_vec();
        damaged[700] ^= 1;
        assert_eq!(parse_copy(&damaged), Err(NotExt4::Checksum));
        assert_eq!(parse_copy(&[0; 4096]), Err(NotExt4::Magic));
    }
}
