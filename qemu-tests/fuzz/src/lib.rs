//! What the targets share: a disk that costs nothing, a machine to install on, checksums, and how much memory
//! something took.
//!
//! A target is a file in fuzz_targets/ and a `[[bin]]` in Cargo.toml; its first lines say what it reads and what must
//! hold. How to run them: `make fuzz`, docs/reliability.md.

pub mod disk;
pub mod install;
pub mod memory;

use arbitrary::Arbitrary;
use boot_core::PublicKey;
use boot_core::dsse::Envelope;
use boot_core::test_support::{TestKey, TestP256Key};
use crc::{CRC_32_ISO_HDLC, Crc};
use std::sync::LazyLock;

/// The checksum of every structure of ours, and of a GPT.
pub const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Puts the checksum of `bytes` at `at`.
pub fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let crc = CRC.checksum(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A structure with a magic and a checksum, of bytes that know of neither.
///
/// `head` are its first bytes, which no fuzzer guesses; the checksum is put at `crc_at`. One in four goes without.
pub fn structure<const N: usize>(data: &[u8], head: &[u8], crc_at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let Some((mode, data)) = data.split_first() else {
        return bytes;
    };
    let length = data.len().min(N);
    bytes[..length].copy_from_slice(&data[..length]);
    if mode & 3 != 3 {
        bytes[..head.len()].copy_from_slice(head);
        seal(&mut bytes, crc_at);
    }
    bytes
}

/// An entry of a ring, with `text`, sealed if its magic is that of `head`.
pub fn ring_entry(data: &[u8], head: &[u8], text: &[u8]) -> [u8; 512] {
    let mut entry = structure::<512>(data, head, 8);
    if !text.is_empty() && entry.starts_with(head) {
        let length = text.len().min(512 - 88);
        entry[34..36].copy_from_slice(&(length as u16).to_le_bytes());
        entry[88..88 + length].copy_from_slice(&text[..length]);
        seal(&mut entry, 8);
    }
    entry
}

/// A byte that is changed, somewhere.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Flip {
    at: u16,
    by: u8,
}

impl Flip {
    /// Changes a byte of `bytes`; nothing where there is none.
    pub fn apply(self, bytes: &mut [u8]) {
        let at = usize::from(self.at) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= self.by.max(1);
        }
    }
}

/// A private key of either algorithm.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Ed25519(TestKey),
    EcdsaP256(TestP256Key),
}

impl Key {
    /// Its public half.
    pub fn public(self) -> PublicKey {
        match self {
            Self::Ed25519(key) => key.public(),
            Self::EcdsaP256(key) => key.public(),
        }
    }

    /// Signs `envelope`.
    pub fn sign(self, envelope: &mut Envelope) {
        match self {
            Self::Ed25519(key) => key.sign(envelope),
            Self::EcdsaP256(key) => key.sign(envelope),
        }
    }
}

/// Two keys of each algorithm, those of ed25519 first, their public halves computed once.
pub static KEYS: LazyLock<[(Key, PublicKey); 4]> = LazyLock::new(|| {
    let keys = [
        Key::Ed25519(TestKey(1)),
        Key::Ed25519(TestKey(2)),
        Key::EcdsaP256(TestP256Key(1)),
        Key::EcdsaP256(TestP256Key(2)),
    ];
    keys.map(|key| (key, key.public()))
});
