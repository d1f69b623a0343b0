//! Which keys sign what, and the chain by which the root keys pass that on.
//!
//! Each link is a DSSE envelope around a [`Keyring`]. The first is signed by the root set that the
//! loader carries, every later one by the root set of the link before; serials rise. The last link's
//! signing set signs manifests. So keys can be rotated without writing an ESP, though
//! no program adds a link yet. An older chain still verifies here: whether the serial of its last link will do is asked
//! of the machine's [`floor`](crate::floor).
//!
//! A chain is of the format of the root set that it is verified against, in all its links: keys of format 1 sign
//! nothing of format 2, nor the other way round. Details: docs/formats/keyring.md.

use alloc::{format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    dsse::{DsseError, Envelope},
    json,
    public_key::{KeyFormat, PublicKey, PublicKeyError},
    types::KeyringSerial,
};

/// DSSE payload type of a keyring of this format.
pub const fn payload_type(format: KeyFormat) -> &'static str {
    match format {
        KeyFormat::V1 => "application/vnd.sternpost.keyring.v1+json",
        KeyFormat::V2 => "application/vnd.sternpost.keyring.v2+json",
    }
}

/// Most links in a chain.
pub const LINKS_MAX: usize = 8;

/// Most keys in a set.
pub const KEYS_MAX: usize = 16;

/// Most bytes of a chain.
pub const CHAIN_MAX: usize = 64 << 10;

/// Some keys, and how many of them must sign. It knows in which format its keys are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireKeySet", into = "WireKeySet")]
pub struct KeySet {
    format: KeyFormat,
    threshold: u8,
    keys: Vec<PublicKey>,
}

#[derive(Serialize, Deserialize)]
struct WireKeySet {
    threshold: u8,
    keys: Vec<String>,
}

/// Why keys and a threshold are not a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// A key that is none; or is not written as the first one.
    #[error("key {0} of a set: {1}")]
    Key(usize, PublicKeyError),
    /// A key of an algorithm that the format has no name for.
    #[error("a key set of format {format} has no {algorithm} keys")]
    Algorithm {
        /// What the set was to be written in.
        format: KeyFormat,
        /// The key's.
        algorithm: &'static str,
    },
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
    /// `threshold` of `keys`, in this format.
    ///
    /// # Errors
    /// If there are none or too many keys, one twice or one that the format has no name for, or the threshold cannot be
    /// met or is zero.
    pub fn new(
        format: KeyFormat,
        threshold: u8,
        keys: Vec<PublicKey>,
    ) -> Result<Self, KeySetError> {
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
        if let Some(key) = keys.iter().find(|key| format.write(key).is_none()) {
            let algorithm = key.algorithm();
            return Err(KeySetError::Algorithm { format, algorithm });
        }
        Ok(Self {
            format,
            threshold,
            keys,
        })
    }

    /// In which its keys are written.
    pub fn format(&self) -> KeyFormat {
        self.format
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
        let first = wire.keys.first().ok_or(KeySetError::Count(0))?;
        let format = KeyFormat::of_key(first);
        let key = |(number, text): (usize, &String)| {
            let key = format.read(text);
            key.map_err(|error| KeySetError::Key(number, error))
        };
        let keys = (1..).zip(&wire.keys).map(key).collect::<Result<_, _>>()?;
        Self::new(format, wire.threshold, keys)
    }
}

impl From<KeySet> for WireKeySet {
    fn from(set: KeySet) -> Self {
        let write = |key| set.format.write(key);
        Self {
            threshold: set.threshold,
            keys: set.keys.iter().filter_map(write).collect(),
        }
    }
}

/// One link's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Number of the [`KeyFormat`] of its sets.
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
    #[error("link {link} of the keyring chain has format {format}, this program knows 1 and 2")]
    Format {
        /// Its place in the chain, from 1.
        link: usize,
        /// What it says.
        format: u32,
    },
    /// A link, or a key set in it, of another format than the keys that it goes back to.
    #[error(
        "link {link} of the keyring chain is of format {found}, the keys that must sign it are of format {expected}: \
         the two are never mixed"
    )]
    OtherFormat {
        /// Its place in the chain, from 1.
        link: usize,
        /// What it says.
        found: KeyFormat,
        /// That of the root keys.
        expected: KeyFormat,
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

    /// In an envelope of the type that goes with its format, not yet signed.
    pub fn to_envelope(&self) -> Envelope {
        Envelope::new(payload_type(self.root.format()), self.to_payload())
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
        let format = format_of(envelopes.len(), &last.payload)?;
        Ok(Self {
            keyring: parse(envelopes.len(), &last.payload, format)?,
            links: envelopes.len(),
        })
    }
}

/// The format that a chain says it is of, by its first link.
pub(crate) fn format_of_chain(json: &[u8]) -> Option<KeyFormat> {
    format_of_type(links(json).ok()?.first()?)
}

/// The format whose payload type an envelope has.
fn format_of_type(envelope: &Envelope) -> Option<KeyFormat> {
    let is_of = |format: &KeyFormat| envelope.payload_type == payload_type(*format);
    KeyFormat::ALL.into_iter().find(is_of)
}

fn links(json: &[u8]) -> Result<Vec<Envelope>, KeyringError> {
    if json.len() > CHAIN_MAX {
        return Err(KeyringError::TooLarge(json.len()));
    }
    Envelope::parse_array(json, LINKS_MAX).map_err(KeyringError::Chain)
}

fn check_link(link: usize, envelope: &Envelope, signers: &KeySet) -> Result<Keyring, KeyringError> {
    let expected = signers.format();
    if let Some(found) = format_of_type(envelope)
        && found != expected
    {
        return Err(KeyringError::OtherFormat {
            link,
            found,
            expected,
        });
    }
    let payload = envelope
        .verify(payload_type(expected), signers)
        .map_err(|error| KeyringError::Link { link, error })?;
    parse(link, payload, expected)
}

/// The format that a payload says it is of.
fn format_of(link: usize, payload: &[u8]) -> Result<KeyFormat, KeyringError> {
    let format = json::format_number(payload).map_err(|error| not_a_keyring(link, &error))?;
    KeyFormat::of(format).ok_or(KeyringError::Format { link, format })
}

/// Reads a keyring, all of which has to be of the format `expected`.
fn parse(link: usize, payload: &[u8], expected: KeyFormat) -> Result<Keyring, KeyringError> {
    let said = format_of(link, payload)?;
    let keyring: Keyring =
        serde_json::from_slice(payload).map_err(|error| not_a_keyring(link, &error))?;
    let sets = [&keyring.root, &keyring.signing]
        .into_iter()
        .chain(&keyring.profile);
    let other = [said]
        .into_iter()
        .chain(sets.map(KeySet::format))
        .find(|found| *found != expected);
    match other {
        None => Ok(keyring),
        Some(found) => Err(KeyringError::OtherFormat {
            link,
            found,
            expected,
        }),
    }
}

fn not_a_keyring(link: usize, error: &serde_json::Error) -> KeyringError {
    KeyringError::Payload {
        link,
        error: format!("{error}"),
    }
}
