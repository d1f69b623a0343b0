//! DSSE envelopes (Dead Simple Signing Envelope 1.0, secure-systems-lab/dsse): exact bytes, their
//! type, and signatures over both.
//!
//! What is signed is [`pae`] of the payload as it stands, never JSON written again. Key ids are hints:
//! they save work, they decide nothing. Details: docs/formats/dsse.md.

use alloc::{borrow::Cow, format, string::String, vec::Vec};

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};

use crate::{
    keyring::KeySet,
    public_key::{PublicKey, SIGNATURE_SIZE},
};

/// Most bytes of an envelope that is read.
pub const ENVELOPE_MAX: usize = 128 << 10;

/// Most bytes of a payload.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// Most signatures in an envelope.
pub const SIGNATURES_MAX: usize = 32;

/// A payload, its type, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Names the format of the payload.
    pub payload_type: String,
    /// The exact bytes that are signed.
    pub payload: Vec<u8>,
    /// Signatures, not yet checked.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Hint which key made it; see [`PublicKey::keyid`]. May be empty.
    pub keyid: String,
    /// Its bytes; of which algorithm they are is for the key to say.
    pub signature: [u8; SIGNATURE_SIZE],
}

/// Why bytes are not an envelope, or an envelope is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// Not the JSON of an envelope.
    #[error("not a DSSE envelope: {0}")]
    Json(String),
    /// Larger than what is read.
    #[error("{what} of {size} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Envelope, payload or number of signatures.
        what: &'static str,
        /// How large it is.
        size: usize,
        /// How large it may be.
        max: usize,
    },
    /// A field is not base64 of what it should be.
    #[error("the envelope's {0} is not valid base64")]
    Base64(&'static str),
    /// A signature of another length than those of any algorithm that is known.
    #[error(
        "a signature of {0} bytes, expected {SIGNATURE_SIZE}: of ECDSA, r and s of 32 bytes each, not DER"
    )]
    SignatureLength(usize),
    /// The payload is of another type than expected.
    #[error("payload type is {found:?}, expected {expected:?}")]
    PayloadType {
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Too few of the keys signed it.
    #[error("{good} valid signature(s) by known keys, {needed} needed")]
    Signatures {
        /// Distinct keys of the set with a valid signature.
        good: usize,
        /// The set's threshold.
        needed: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(rename = "payloadType", borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<WireSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature<'a> {
    #[serde(borrow, default)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// DSSE's pre-authentication encoding: the bytes that are signed.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let (type_len, payload_len) = (payload_type.len(), payload.len());
    let mut bytes = format!("DSSEv1 {type_len} {payload_type} {payload_len} ").into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Around `payload`, with no signature yet.
    pub fn new(payload_type: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload_type: payload_type.into(),
            payload: payload.into(),
            signatures: Vec::new(),
        }
    }

    /// Reads an envelope, without checking a signature. Fields it does not know are ignored.
    ///
    /// # Errors
    /// If it is none, or larger than [`ENVELOPE_MAX`], [`PAYLOAD_MAX`], [`SIGNATURES_MAX`] allow.
    pub fn parse(json: &[u8]) -> Result<Self, DsseError> {
        limit("an envelope", json.len(), ENVELOPE_MAX)?;
        let wire: Wire<'_> =
            serde_json::from_slice(json).map_err(|error| DsseError::Json(format!("{error}")))?;
        Self::from_wire(&wire)
    }

    /// Reads a JSON array of at most `max` envelopes.
    pub(crate) fn parse_array(json: &[u8], max: usize) -> Result<Vec<Self>, DsseError> {
        let wires: Vec<Wire<'_>> =
            serde_json::from_slice(json).map_err(|error| DsseError::Json(format!("{error}")))?;
        limit("a keyring chain", wires.len(), max)?;
        wires.iter().map(Self::from_wire).collect()
    }

    fn from_wire(wire: &Wire<'_>) -> Result<Self, DsseError> {
        limit(
            "a number of signatures",
            wire.signatures.len(),
            SIGNATURES_MAX,
        )?;
        let payload =
            Base64::decode_vec(&wire.payload).map_err(|_| DsseError::Base64("payload"))?;
        limit("a payload", payload.len(), PAYLOAD_MAX)?;
        let signature = |wire: &WireSignature<'_>| {
            let bytes = Base64::decode_vec(&wire.sig).map_err(|_| DsseError::Base64("sig"))?;
            let length = bytes.len();
            let signature = bytes
                .try_into()
                .map_err(|_| DsseError::SignatureLength(length))?;
            Ok(Signature {
                keyid: wire.keyid.clone().into_owned(),
                signature,
            })
        };
        Ok(Self {
            payload_type: wire.payload_type.clone().into_owned(),
            payload,
            signatures: wire
                .signatures
                .iter()
                .map(signature)
                .collect::<Result<_, DsseError>>()?,
        })
    }

    /// The envelope as JSON, compact, fields in the specification's order.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.to_wire()).unwrap_or_default()
    }

    /// A JSON array of envelopes, as a keyring chain is stored.
    pub fn array_to_json(envelopes: &[Self]) -> Vec<u8> {
        let wires: Vec<_> = envelopes.iter().map(Self::to_wire).collect();
        serde_json::to_vec(&wires).unwrap_or_default()
    }

    fn to_wire(&self) -> Wire<'_> {
        let signature = |signature: &Signature| WireSignature {
            keyid: Cow::Owned(signature.keyid.clone()),
            sig: Cow::Owned(Base64::encode_string(&signature.signature)),
        };
        Wire {
            payload_type: Cow::Borrowed(&self.payload_type),
            payload: Cow::Owned(Base64::encode_string(&self.payload)),
            signatures: self.signatures.iter().map(signature).collect(),
        }
    }

    /// Adds the signature that `sign` makes, with the private half of `key`, of the bytes it is given.
    pub fn sign<E>(
        &mut self,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<[u8; SIGNATURE_SIZE], E>,
    ) -> Result<(), E> {
        let signature = sign(&pae(&self.payload_type, &self.payload))?;
        self.signatures.push(Signature {
            keyid: key.keyid(),
            signature,
        });
        Ok(())
    }

    /// The payload, if it is of type `expected` and enough distinct keys of `keys` signed it.
    ///
    /// # Errors
    /// If it is of another type, or has too few valid signatures.
    pub fn verify(&self, expected: &'static str, keys: &KeySet) -> Result<&[u8], DsseError> {
        if self.payload_type != expected {
            let found = self.payload_type.chars().take(100).collect();
            return Err(DsseError::PayloadType { found, expected });
        }
        let message = pae(&self.payload_type, &self.payload);
        let needed = usize::from(keys.threshold());
        let mut good: usize = 0;
        for key in keys.keys() {
            if good >= needed {
                break;
            }
            if self.is_signed_by(key, &message) {
                good = good.saturating_add(1);
            }
        }
        if good >= needed {
            Ok(&self.payload)
        } else {
            Err(DsseError::Signatures { good, needed })
        }
    }

    fn is_signed_by(&self, key: &PublicKey, message: &[u8]) -> bool {
        let keyid = key.keyid();
        self.signatures
            .iter()
            .filter(|signature| signature.keyid.is_empty() || signature.keyid == keyid)
            .any(|signature| key.signed(message, &signature.signature))
    }
}

fn limit(what: &'static str, size: usize, max: usize) -> Result<(), DsseError> {
    if size <= max {
        Ok(())
    } else {
        Err(DsseError::TooLarge { what, size, max })
    }
}
