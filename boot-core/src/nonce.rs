//! A fresh nonce for every start, so that the initrd can tell the disk that the loader committed to from a copy of it.
//!
//! The nonce need not be secret; it must not repeat. Firmware random numbers are used where there are any, always mixed
//! with counters and the clock, because some firmware answers with the same "random" bytes at every boot.

use sha2::{Digest as _, Sha256};

use crate::{bytes::disk_len, types::Nonce};

/// Mixes `sources` into a nonce. The order and the lengths count, so that no two lists give the same input.
pub fn mix(sources: &[&[u8]]) -> Nonce {
    let mut hash = Sha256::new();
    hash.update(b"sternpost nonce 1");
    for source in sources {
        hash.update(disk_len(source.len()).to_le_bytes());
        hash.update(source);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let nonce = Nonce(digest.first_chunk().copied().unwrap_or_default());
    // All zeros means "none" in the record.
    if nonce.is_zero() {
        Nonce([1; 16])
    } else {
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_source_changes_the_nonce() {
        let base = mix(&[b"random", &1u64.to_le_bytes()]);
        assert_eq!(base, mix(&[b"random", &1u64.to_le_bytes()]));
        assert_ne!(base, mix(&[b"random", &2u64.to_le_bytes()]));
        assert_ne!(base, mix(&[b"", &1u64.to_le_bytes()]));
        assert_ne!(mix(&[b"a", b"bc"]), mix(&[b"ab", b"c"]));
    }
}
