//! Which keys sign what, and the chain by which the root keys pass that on.
//!
//! Each link is a DSSE envelope around a [`Keyring`]. The first is signed by the root set that the
//! loader carries, every later one by the root set of the link before; serials rise. The last link's
//! signing set signs manifests. So keys can be rotated without writing an ESP, though
//! no program adds a link yet. An older chain still verifies here: whether the serial of its last link will do is asked
//! of the machine's [`floor`](crate::floor). Details: docs/formats/keyring.md.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    dsse::{DsseError, Envelope},
    types::{KeyringSerial, PublicKey},
};

/// DSSE payload type of a keyring.
pub const PAYLOAD_TYPE: &str = "application/vnd.sternpost.keyring.v1+json";

/// Most links in a chain.
pub const LINKS_MAX: usize = 8;

/// Most keys in a set.
pub const KEYS_MAX: usize = 16;

/// Most bytes of a chain.
pub const CHAIN_MAX: usize = 64 << 10;

/// Some keys, and how many of them must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireKeySet")]
pub struct KeySet {
    threshold: u8,
    keys: Vec<PublicKey>,
}

#[derive(Deserialize)]
struct WireKeySet {
    threshold: u8,
    keys: Vec<PublicKey>,
}

/// Why keys and a threshold are not a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// None, or too many.
    #[error("a key set has 1 to {KEYS_MAX} keys, this one has {0}")]
    Count(usize),
    /// One key more than once.
    #[error("a key set names one key twice")]
    Duplicate,
    /// A threshold of zero, or of more keys than there are.
    #[error("a threshold of {threshold} cannot be met by {keys} key(s), or asks for none")]
    Threshold {
        /// What was asked for.
        threshold: u8,
        /// How many keys there are.
        keys: usize,
    },
}

impl KeySet {
    /// `threshold` of `keys`.
    ///
    /// # Errors
    /// If there are none or too many keys, one twice, or the threshold cannot be met or is zero.
    pub fn new(threshold: u8, keys: Vec<PublicKey>) -> Result<Self, KeySetError> {
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(KeySetError::Count(keys.len()));
        }
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != keys.len() {
            return Err(KeySetError::Duplicate);
        }
        if threshold == 0 || usize::from(threshold) > keys.len() {
            return Err(KeySetError::Threshold {
                threshold,
                keys: keys.len(),
            });
        }
        Ok(Self { threshold, keys })
    }

    /// How many distinct keys must sign.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// The keys, each once.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }
}

impl TryFrom<WireKeySet> for KeySet {
    type Error = KeySetError;

    fn try_from(wire: WireKeySet) -> Result<Self, KeySetError> {
        Self::new(wire.threshold, wire.keys)
    }
}

/// One link's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// 1.
    pub format: u32,
    /// Rises with each link.
    pub serial: KeyringSerial,
    /// The product it is for.
    pub product: String,
    /// Signs the next link.
    pub root: KeySet,
    /// Signs manifests.
    pub signing: KeySet,
    /// Signs profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<KeySet>,
}

/// Why a chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Longer than what is read.
    #[error("a keyring chain of {0} bytes is longer than the {CHAIN_MAX} allowed")]
    TooLarge(usize),
    /// No link at all.
    #[error("the keyring chain is empty")]
    NoLinks,
    /// The array, or an envelope in it, cannot be read.
    #[error("the keyring chain cannot be read: {0}")]
    Chain(DsseError),
    /// A link is not signed by those who must sign it.
    #[error("link {link} of the keyring chain: {error}")]
    Link {
        /// Its place in the chain, from 1.
        link: usize,
        /// What is wrong.
        error: DsseError,
    },
    /// A link's payload is not a keyring.
    #[error("link {link} of the keyring chain is not a keyring: {error}")]
    Payload {
        /// Its place in the chain, from 1.
        link: usize,
        /// What is wrong.
        error: String,
    },
    /// A link of a format that this build does not know.
    #[error("link {link} of the keyring chain has format {format}, this program knows 1")]
    Format {
        /// Its place in the chain, from 1.
        link: usize,
        /// What it says.
        format: u32,
    },
    /// A link for another product.
    #[error("link {link} of the keyring chain is for product {product:?}")]
    Product {
        /// Its place in the chain, from 1.
        link: usize,
        /// What it says.
        product: String,
    },
    /// A serial that does not rise.
    #[error("link {link} of the keyring chain has serial {serial}, not above the one before")]
    Serial {
        /// Its place in the chain, from 1.
        link: usize,
        /// What it says.
        serial: KeyringSerial,
    },
}

impl Keyring {
    /// The bytes to sign: compact JSON.
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A keyring chain, each link checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The last link: the keys that count.
    pub keyring: Keyring,
    /// How many links there were.
    pub links: usize,
}

impl Chain {
    /// Reads a chain and checks it, link by link, from `root` on.
    ///
    /// # Errors
    /// [`KeyringError`] for the first link that is not believed.
    pub fn verify(json: &[u8], root: &KeySet, product: &str) -> Result<Self, KeyringError> {
        let envelopes = links(json)?;
        let mut last: Option<Keyring> = None;
        for (link, envelope) in (1..).zip(&envelopes) {
            let signers = last.as_ref().map_or(root, |last| &last.root);
            let keyring = check_link(link, envelope, signers)?;
            if keyring.product != product {
                let product = keyring.product.chars().take(100).collect();
                return Err(KeyringError::Product { link, product });
            }
            if last
                .as_ref()
                .is_some_and(|last| keyring.serial <= last.serial)
            {
                return Err(KeyringError::Serial {
                    link,
                    serial: keyring.serial,
                });
            }
            last = Some(keyring);
        }
        let keyring = last.ok_or(KeyringError::NoLinks)?;
        Ok(Self {
            keyring,
            links: envelopes.len(),
        })
    }

    /// Reads a chain whose signatures somebody else looks at, or has looked at.
    ///
    /// # Errors
    /// [`KeyringError`], if its last link is no keyring that can be read.
    pub fn read_unverified(json: &[u8]) -> Result<Self, KeyringError> {
        let envelopes = links(json)?;
        let last = envelopes.last().ok_or(KeyringError::NoLinks)?;
        Ok(Self {
            keyring: parse(envelopes.len(), &last.payload)?,
            links: envelopes.len(),
        })
    }
}

fn links(json: &[u8]) -> Result<Vec<Envelope>, KeyringError> {
    if json.len() > CHAIN_MAX {
        return Err(KeyringError::TooLarge(json.len()));
    }
    Envelope::parse_array(json, LINKS_MAX).map_err(KeyringError::Chain)
}

fn check_link(link: usize, envelope: &Envelope, signers: &KeySet) -> Result<Keyring, KeyringError> {
    let payload = envelope
        .verify(PAYLOAD_TYPE, signers)
        .map_err(|error| KeyringError::Link { link, error })?;
    parse(link, payload)
}

fn parse(link: usize, payload: &[u8]) -> Result<Keyring, KeyringError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let not_json = |error| KeyringError::Payload {
        link,
        error: format!("{error}"),
    };
    let Format { format } = serde_json::from_slice(payload).map_err(not_json)?;
    if format != 1 {
        return Err(KeyringError::Format { link, format });
    }
    serde_json::from_slice(payload).map_err(not_json)
}
