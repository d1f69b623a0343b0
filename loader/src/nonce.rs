//! A fresh nonce for every start, so that the initrd can tell the disk that the loader committed to from a copy of it.
//!
//! The nonce need not be secret; it must not repeat. Firmware random numbers are used where there are any, always mixed
//! with counters and the clock, because some firmware answers with the same "random" bytes at every boot.

use sha2::{Digest, Sha256};

/// Mixes `sources` into 16 bytes. The order and the lengths count, so that no two lists give the same input.
#[must_use]
pub fn mix(sources: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(b"sternpost nonce 1");
    for source in sources {
        hash.update((source.len() as u64).to_le_bytes());
        hash.update(source);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut nonce = [0; 16];
    for (to, from) in nonce.iter_mut().zip(digest) {
        *to = from;
    }
    // All zeros means "none" in the record.
    if nonce == [0; 16] {
        nonce = [1; 16];
    }
    nonce
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
