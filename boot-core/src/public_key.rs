//! Public keys: of which algorithm each is, how it is written, and whether it signed something.
//!
//! The algorithm of a signature is that of the key that it is checked against. Nothing that a signature says chooses
//! it, so none can pass for one of another algorithm. Details: docs/formats/keyring.md, docs/formats/dsse.md.

use alloc::{
    format,
    string::{String, ToString},
};
use core::fmt;

use ed25519_dalek as ed25519;
use p256::ecdsa::{self, signature::Verifier as _};

use crate::types::Digest;

/// Bytes of a signature, of either algorithm.
pub const SIGNATURE_SIZE: usize = 64;

const ED25519: &str = "ed25519";
const ECDSA_P256: &str = "ecdsa-p256";

/// A key that verifies signatures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// Of ed25519: the 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
    /// Of ECDSA over P-256 with SHA-256.
    EcdsaP256(P256Point),
}

/// A point of the curve P-256 other than infinity, compressed as in SEC 1, 2.3.3. Each point is written in one way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct P256Point([u8; 33]);

/// How keys are written, which is that of the trust or keyring that they stand in. The two are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Hexadecimal alone: ed25519.
    V1,
    /// The algorithm's name, a colon, hexadecimal.
    V2,
}

/// Text that is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Of format 1 and not 32 bytes in hexadecimal.
    #[error("a key of format 1 is 64 hexadecimal digits, of ed25519")]
    V1,
    /// Of format 2, and neither of an algorithm that is known nor of its length.
    #[error("a key of format 2 is {ED25519}: and 64 hexadecimal digits, or {ECDSA_P256}: and 66")]
    V2,
    /// The right length, but no point of the curve, or one that is not compressed.
    #[error("{ECDSA_P256}:{} is no compressed point of the curve P-256", hex::encode(.0))]
    NoPoint([u8; 33]),
}

impl KeyFormat {
    /// All that this build reads, the oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The one with this number, if this build knows it.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.number() == number)
    }

    /// The number that stands in trust and keyring.
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The one that `text`, a key, is written in, if it is one.
    pub fn of_key(text: &str) -> Self {
        if text.contains(':') {
            Self::V2
        } else {
            Self::V1
        }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`PublicKeyError`], if it is none of this format.
    pub fn read(self, text: &str) -> Result<PublicKey, PublicKeyError> {
        match (self, text.split_once(':')) {
            (Self::V1, _) => Ok(PublicKey::Ed25519(bytes(text).ok_or(PublicKeyError::V1)?)),
            (Self::V2, Some((ED25519, digits))) => {
                let key = bytes(digits).ok_or(PublicKeyError::V2)?;
                Ok(PublicKey::Ed25519(key))
            }
            (Self::V2, Some((ECDSA_P256, digits))) => {
                let point = bytes(digits).ok_or(PublicKeyError::V2)?;
                Ok(PublicKey::EcdsaP256(P256Point::new(point)?))
            }
            (Self::V2, _) => Err(PublicKeyError::V2),
        }
    }

    /// Writes a key; none, if there is no way to write it in this format.
    pub fn write(self, key: &PublicKey) -> Option<String> {
        match (self, key) {
            (Self::V1, PublicKey::Ed25519(bytes)) => Some(hex::encode(bytes)),
            (Self::V1, PublicKey::EcdsaP256(_)) => None,
            (Self::V2, key) => Some(key.to_string()),
        }
    }
}

impl fmt::Display for KeyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl P256Point {
    /// From its compressed form.
    ///
    /// # Errors
    /// [`PublicKeyError::NoPoint`], if it is another form, or not on the curve.
    pub fn new(bytes: [u8; 33]) -> Result<Self, PublicKeyError> {
        // SEC 1 knows other forms of this length: were they read, one key could stand twice in a set.
        let compressed = matches!(bytes.first(), Some(2 | 3));
        if compressed && ecdsa::VerifyingKey::from_sec1_bytes(&bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(PublicKeyError::NoPoint(bytes))
        }
    }

    /// Its compressed form.
    pub fn bytes(&self) -> &[u8; 33] {
        &self.0
    }
}

impl PublicKey {
    /// The name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => ED25519,
            Self::EcdsaP256(_) => ECDSA_P256,
        }
    }

    /// Its bytes, without the algorithm.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(bytes) => bytes,
            Self::EcdsaP256(point) => point.bytes(),
        }
    }

    /// How DSSE signatures name this key: hexadecimal of the first 16 bytes of its SHA-256.
    pub fn keyid(&self) -> String {
        let digest = Digest::of(self.bytes());
        hex::encode(digest.0.first_chunk::<16>().unwrap_or(&[0; 16]))
    }

    /// Whether `signature` is this key's of `message`.
    ///
    /// Of ECDSA both values of s count that are right: tokens give either, and nothing is known by its signature. Who
    /// makes the other of a signature that is there has signed nothing: distinct keys are counted.
    pub fn signed(&self, message: &[u8], signature: &[u8; SIGNATURE_SIZE]) -> bool {
        match self {
            Self::Ed25519(key) => {
                let signature = ed25519::Signature::from_bytes(signature);
                ed25519::VerifyingKey::from_bytes(key)
                    .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
            }
            Self::EcdsaP256(point) => {
                let key = ecdsa::VerifyingKey::from_sec1_bytes(point.bytes());
                let signature = ecdsa::Signature::from_slice(signature);
                key.is_ok_and(|key| signature.is_ok_and(|it| key.verify(message, &it).is_ok()))
            }
        }
    }
}

/// As in format 2.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!(
            "{}:{}",
            self.algorithm(),
            hex::encode(self.bytes())
        ))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Debug for P256Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P256Point({})", hex::encode(self.0))
    }
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}
