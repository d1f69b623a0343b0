//! The root of trust: what the loader carries in its own `.sptrust` section, and the running system
//! in `/usr/lib/sternpost/trust.json`. Details: docs/formats/trust.md.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    bytes::{field, memory_len, put},
    json,
    keyring::{self, KeySet},
    pe::EfiProgram,
    public_key::KeyFormat,
    types::{Architecture, Digest},
};

/// Name of the loader's PE section.
pub const SECTION_NAME: &str = ".sptrust";

/// Size of that section in bytes.
pub const SECTION_SIZE: usize = 8192;

/// How the section starts; a `u32` length and the JSON follow.
pub const SECTION_MAGIC: [u8; 8] = *b"SPTRUST1";

const JSON_AT: usize = 12;

/// Whose images may start here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Number of the [`KeyFormat`] of its keys, and of the keyring chains that they sign.
    pub format: u32,
    /// Product name that manifests must have.
    pub product: String,
    /// Architecture that manifests must have.
    pub architecture: Architecture,
    /// Layout id that manifests must have.
    pub layout: String,
    /// Signs the first link of a keyring chain of this format.
    pub root: KeySet,
    /// Signs the first link of one of format 1, beside a root of format 2: so that what machines hold goes on starting while
    /// they come to the new format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_root: Option<KeySet>,
}

/// Why bytes are no root of trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The section has not been filled in.
    #[error("the trust section is empty: this loader was not made by imager")]
    Unfilled,
    /// The section is not what it should be.
    #[error("the trust section is damaged")]
    Section,
    /// Too much JSON for the section.
    #[error("trust of {0} bytes does not fit in the section of {SECTION_SIZE}")]
    TooLarge(usize),
    /// Not the JSON of a root of trust.
    #[error("the root of trust cannot be read: {0}")]
    Json(String),
    /// A format that this build does not know.
    #[error("the root of trust has format {0}, this program knows 1 and 2")]
    Format(u32),
    /// Keys that are not written as its format says.
    #[error(
        "the root of trust has format {said}, its keys are written as in format {keys}: the two are never mixed"
    )]
    OtherFormat {
        /// What it says.
        said: KeyFormat,
        /// That of its keys.
        keys: KeyFormat,
    },
    /// A former root that is none.
    #[error("the former root of trust has to be of format 1, beside a root of format 2")]
    FormerRoot,
    /// Bytes that are not those which were written.
    #[error("the loader is damaged: its checksum does not match")]
    Damaged,
    /// Not a loader at all.
    #[error("this is no Sternpost loader: not a UEFI application with a trust section")]
    NoLoader,
    /// The program is for one architecture, its trust for the other.
    #[error("the loader does not run on {0}, which it says that it is for")]
    OtherArchitecture(Architecture),
}

impl Trust {
    /// From JSON.
    ///
    /// # Errors
    /// [`TrustError`], if it is not a root of trust.
    pub fn from_json(json: &[u8]) -> Result<Self, TrustError> {
        let not_json = |error: serde_json::Error| TrustError::Json(error.to_string());
        let format = json::format_number(json).map_err(not_json)?;
        let said = KeyFormat::of(format).ok_or(TrustError::Format(format))?;
        let trust: Self = serde_json::from_slice(json).map_err(not_json)?;
        let keys = trust.root.format();
        if keys != said {
            return Err(TrustError::OtherFormat { said, keys });
        }
        match trust.former_root.as_ref().map(KeySet::format) {
            None => Ok(trust),
            Some(KeyFormat::V1) if said == KeyFormat::V2 => Ok(trust),
            Some(_) => Err(TrustError::FormerRoot),
        }
    }

    /// The set that signs the first link of this keyring chain, by the format that the chain is of.
    pub fn root_for(&self, chain: &[u8]) -> &KeySet {
        match &self.former_root {
            Some(former) if keyring::format_of_chain(chain) == Some(former.format()) => former,
            _ => &self.root,
        }
    }

    /// To JSON, compact.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digest of [`to_json`](Self::to_json): the same for the loader's section and a file in the root that say the
    /// same, however they are written.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_json())
    }

    /// From the loader's section. What follows the JSON is ignored.
    ///
    /// # Errors
    /// [`TrustError`], if there is no root of trust in it.
    pub fn from_section(section: &[u8]) -> Result<Self, TrustError> {
        if field(section, 0) != SECTION_MAGIC {
            return Err(TrustError::Section);
        }
        let len = u32::from_le_bytes(field(section, 8));
        if len == 0 {
            return Err(TrustError::Unfilled);
        }
        let json = section
            .get(JSON_AT..)
            .and_then(|rest| rest.get(..memory_len(len.into())))
            .ok_or(TrustError::Section)?;
        Self::from_json(json)
    }

    /// From a whole loader, as it lies on an ESP, whose bytes are those that were written ([`EfiProgram::is_intact`]).
    ///
    /// # Errors
    /// [`TrustError`], if it is no loader, a damaged one, or one without a root of trust.
    pub fn from_intact_program(bytes: &[u8]) -> Result<Self, TrustError> {
        let program = EfiProgram::parse(bytes).ok_or(TrustError::NoLoader)?;
        if !program.is_intact() {
            return Err(TrustError::Damaged);
        }
        let section = program
            .section(SECTION_NAME)
            .and_then(|range| bytes.get(range))
            .ok_or(TrustError::NoLoader)?;
        let trust = Self::from_section(section)?;
        if program.architecture() == Some(trust.architecture) {
            Ok(trust)
        } else {
            Err(TrustError::OtherArchitecture(trust.architecture))
        }
    }

    /// The section that the loader is given.
    pub fn to_section(&self) -> Result<Vec<u8>, TrustError> {
        let json = self.to_json();
        let len = u32::try_from(json.len()).map_err(|_| TrustError::TooLarge(json.len()))?;
        if json.len() > SECTION_SIZE.saturating_sub(JSON_AT) {
            return Err(TrustError::TooLarge(json.len()));
        }
        let mut section = vec![0; SECTION_SIZE];
        put(&mut section, 0, &SECTION_MAGIC);
        put(&mut section, 8, &len.to_le_bytes());
        put(&mut section, JSON_AT, &json);
        Ok(section)
    }

    /// One line for a log: product, architecture, layout and keys.
    pub fn summary(&self) -> String {
        let keys = self.root.keys().len();
        let former = match self.former_root {
            Some(_) => ", and a former root",
            None => "",
        };
        format!(
            "product {}, {}, layout {}, {} of {keys} root key(s){former}",
            self.product,
            self.architecture,
            self.layout,
            self.root.threshold()
        )
    }
}
