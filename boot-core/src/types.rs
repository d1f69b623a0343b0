//! Values that must not be swapped for one another.

use alloc::borrow::Cow;
use core::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// A number of a record or of a ring's entry is below this; what says otherwise is damaged. All numbers are counted up one
/// by one from 0, so that no history gets there; and what could not be followed by a greater number would be the newest
/// for ever.
pub const NUMBERS_END: u64 = 1 << 60;

/// The last number below it.
pub(crate) const LAST_NUMBER: u64 = NUMBERS_END.saturating_sub(1);

/// Text that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not lower- or upper-case hexadecimal of the right length.
    #[error("expected {0} hexadecimal digits")]
    Hex(usize),
    /// A version string that is empty, too long or has characters other than visible ASCII.
    #[error("expected a version of 1 to {} visible ASCII characters", Version::MAX)]
    Version,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// All zero, which stands for "none" on the disk.
            pub const ZERO: Self = Self([0; $size]);

            /// Whether it is [`ZERO`](Self::ZERO).
            pub fn is_zero(&self) -> bool {
                *self == Self::ZERO
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                let mut bytes = [0; $size];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseError::Hex($size * 2))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

hex_bytes!(
    /// A SHA-256 digest.
    Digest, 32
);
hex_bytes!(
    /// The root hash of a dm-verity tree.
    RootHash, 32
);
hex_bytes!(
    /// The salt of a dm-verity tree.
    Salt, 32
);
hex_bytes!(
    /// Chosen afresh by the loader at every start; ties a running system to one disk.
    Nonce, 16
);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// Says which images an appliance may still fall back to: never one below its floor.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SecurityVersion(pub u64);

impl fmt::Display for SecurityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Serial of a keyring; rises as keys are withdrawn. 0 stands for "not known" and "none" on the disk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct KeyringSerial(pub u64);

impl fmt::Display for KeyringSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of an image, as people call it: up to 32 visible ASCII characters. Never compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Version([u8; Self::MAX]);

impl Version {
    /// Most bytes in a version.
    pub const MAX: usize = 32;

    /// From the zero-padded field of a record; all zero is the empty version of an empty slot.
    pub(crate) fn from_padded(bytes: [u8; Self::MAX]) -> Option<Self> {
        let len = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(Self::MAX);
        let (text, padding) = bytes.split_at_checked(len)?;
        let fits = text.iter().all(u8::is_ascii_graphic) && padding.iter().all(|byte| *byte == 0);
        fits.then_some(Self(bytes))
    }

    /// Zero-padded, as in a record.
    pub(crate) fn padded(&self) -> &[u8; Self::MAX] {
        &self.0
    }

    /// The text; empty for an empty slot.
    pub fn as_str(&self) -> &str {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Whether there is no version.
    pub fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }
}

impl FromStr for Version {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; Self::MAX];
        let place = bytes.get_mut(..text.len()).ok_or(ParseError::Version)?;
        place.copy_from_slice(text.as_bytes());
        match Self::from_padded(bytes) {
            Some(version) if !text.is_empty() && version.as_str() == text => Ok(version),
            _ => Err(ParseError::Version),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({:?})", self.as_str())
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What a UKI and its root are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Architecture {
    /// Both, in the order in which messages list them.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// What this program was built for.
    pub const OWN: Self = if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        Self::X86_64
    };

    /// The name used in manifests, and by Rust and the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn versions() {
        assert_eq!("1.2.3".parse::<Version>().unwrap().to_string(), "1.2.3");
        let longest = "x".repeat(32);
        assert_eq!(longest.parse::<Version>().unwrap().as_str(), longest);
        for bad in ["", "a b", "x\0", "ä", &"x".repeat(33)] {
            assert_eq!(bad.parse::<Version>(), Err(ParseError::Version), "{bad:?}");
        }
        let mut padded = [0; 32];
        padded[1] = b'1';
        assert_eq!(Version::from_padded(padded), None);
    }

    #[test]
    fn digests() {
        let digest = Digest::of(b"");
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!("e3".parse::<Digest>(), Err(ParseError::Hex(64)));
    }
}
