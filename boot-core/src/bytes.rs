//! Little-endian fields in structures of fixed size, and the CRC that protects them.

use crc::{CRC_32_ISO_HDLC, Crc};

/// Size of every structure that is written as one logical block.
pub(crate) const STRUCTURE: usize = 512;

pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The `N` bytes at `at`; zeros where the structure is shorter, which no caller's offsets allow.
pub(crate) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

/// Writes `value` at `at`.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..value.len()))
    {
        place.copy_from_slice(value);
    }
}

/// CRC-32/ISO-HDLC of `bytes`, with the four bytes at `at` read as zero.
pub(crate) fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let mut digest = CRC.digest();
    digest.update(bytes.get(..at).unwrap_or_default());
    digest.update(&[0; 4]);
    digest.update(bytes.get(at.saturating_add(4)..).unwrap_or_default());
    digest.finalize()
}

/// Fills in the CRC at `at`, computed over the rest.
pub(crate) fn seal(bytes: &mut [u8], at: usize) {
    let crc = crc_without(bytes, at);
    put(bytes, at, &crc.to_le_bytes());
}

/// Whether the CRC at `at` is right.
pub(crate) fn is_sealed(bytes: &[u8], at: usize) -> bool {
    crc_without(bytes, at) == u32_at(bytes, at)
}

/// A length in memory as a length on a disk. Lossless: no target has addresses of more than 64 bits.
pub(crate) fn disk_len(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// A length on a disk as a length in memory, saturating: what does not fit cannot be allocated either.
pub(crate) fn memory_len(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_iso_hdlc() {
        assert_eq!(CRC.checksum(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn seal_then_check() {
        let mut bytes = [7; 64];
        seal(&mut bytes, 12);
        assert!(is_sealed(&bytes, 12));
        bytes[63] ^= 1;
        assert!(!is_sealed(&bytes, 12));
    }
}
