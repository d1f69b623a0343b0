//! The manifest: what an image is, signed. Details: docs/formats/manifest.md.
//!
//! JSON of at most 64 KiB in a DSSE envelope. Fields that are not known are ignored, because loaders
//! meet manifests newer than themselves; what such a loader must not start says so by a higher
//! `format`. What follows from what a manifest describes, says its [`Kind`].

mod kind;

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Deserializer, Serialize};

pub use kind::{Kind, Place};

use crate::{
    bytes::memory_len,
    dsse::PAYLOAD_MAX,
    floor::Level,
    json,
    record::SlotContents,
    types::{Architecture, Digest, KeyringSerial, RootHash, Salt, SecurityVersion, Version},
    verity::{BLOCK, Geometry},
};

/// DSSE payload type of a manifest.
pub const PAYLOAD_TYPE: &str = "application/vnd.sternpost.manifest.v1+json";

/// The format that this build knows.
pub const FORMAT: u32 = 1;

/// Bytes in a chunk: the unit of a bundle's frames.
pub const CHUNK_SIZE: u64 = 4 << 20;

/// Most bytes of a product name.
pub const PRODUCT_MAX: usize = 64;

/// Most events that a manifest names.
pub const EVENTS_MAX: usize = 64;

/// The last PCR of a TPM.
pub const PCR_MAX: u8 = 23;

/// Largest UKI that is read into memory.
pub const UKI_MAX: u64 = 1 << 30;

/// One chunk of something that a bundle holds as frames: of the UKI, or of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which one, from 0.
    pub index: u32,
    /// Where it begins, in bytes from the beginning of the whole.
    pub offset: u64,
    /// Bytes: [`CHUNK_SIZE`], less for the last one.
    pub len: usize,
}

impl Chunk {
    /// The one with this index, of a whole of `size` bytes; empty beyond its end.
    pub fn of(size: u64, index: u32) -> Self {
        let offset = u64::from(index).saturating_mul(CHUNK_SIZE);
        let rest = size.saturating_sub(offset);
        Self {
            index,
            offset,
            len: memory_len(rest.min(CHUNK_SIZE)),
        }
    }

    /// All of a whole of `size` bytes, in order.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        let count = u32::try_from(size.div_ceil(CHUNK_SIZE)).unwrap_or(u32::MAX);
        (0..count).map(move |index| Self::of(size, index))
    }

    /// Bytes that it takes on a disk: whole blocks.
    pub fn len_on_disk(&self) -> usize {
        self.len.next_multiple_of(memory_len(BLOCK))
    }
}

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The product it is for.
    pub product: String,
    /// What it is.
    pub kind: Kind,
    /// Layout of the disks that it fits.
    pub layout: String,
    /// Its version, for people.
    pub version: Version,
    /// Its security version.
    pub security_version: SecurityVersion,
    /// Epoch of what it keeps on `state` per version.
    pub state_epoch: u64,
    /// The machines it runs on.
    pub architecture: Architecture,
    /// The UKI, in kinds that have one; of a loader, the loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki: Option<Uki>,
    /// The filesystem, in kinds that have one: the root of a system, or a file on `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// What a start of it measures, in the order in which it does. Nothing starts or is kept from starting by them, so that
    /// those of a later release that are other than these are read as none.
    #[serde(
        default,
        deserialize_with = "events_or_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub events: Vec<MeasuredEvent>,
    /// What is inside.
    #[serde(default)]
    pub contents: Contents,
    /// Where it comes from.
    #[serde(default)]
    pub build: Build,
    /// Seconds since 1970 after which it is not installed any more. Never looked at when booting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// The UKI of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uki {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of all of it.
    #[serde(rename = "digest")]
    pub digest: Digest,
    /// [`CHUNK_SIZE`].
    pub chunk_size: u64,
    /// SHA-256 of each chunk; the last chunk may be short.
    pub chunks: Vec<Digest>,
}

/// An event that a start of an image makes in a PCR of the TPM. Not the PCR's value: that depends on more than the
/// image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredEvent {
    /// The PCR, at most [`PCR_MAX`].
    pub pcr: u8,
    /// What it is extended by in the bank of SHA-256.
    pub digest: Digest,
    /// What is measured, for people: 1 to 64 visible ASCII characters.
    pub what: String,
}

/// The filesystem of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Root hash of its dm-verity tree.
    pub hash: RootHash,
    /// Salt of that tree.
    pub salt: Salt,
    /// Bytes of the filesystem, a multiple of 4096.
    pub data_size: u64,
    /// Bytes with the tree.
    pub size: u64,
    /// [`CHUNK_SIZE`].
    pub chunk_size: u64,
}

/// What is inside an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Kernel release.
    #[serde(default)]
    pub kernel: String,
    /// The Kubernetes distribution, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// The VM runtime, or "none".
    #[serde(default)]
    pub vm: String,
    /// Drivers of hardware watchdogs in the initramfs, which it opens before anything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchdogs: Vec<String>,
}

/// A Kubernetes distribution in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Its name.
    pub distribution: String,
    /// Version of Kubernetes.
    pub version: String,
}

/// Where an image comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Seconds since 1970: SOURCE_DATE_EPOCH of the build, else the time of the newest package or of the recipe.
    #[serde(default)]
    pub time: u64,
    /// Program and version that built it.
    #[serde(default)]
    pub tool: String,
    /// The recipe.
    #[serde(default)]
    pub recipe: String,
}

/// Why a payload is not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Larger than what is read.
    #[error("a manifest of {0} bytes is larger than the {PAYLOAD_MAX} allowed")]
    TooLarge(usize),
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("the manifest cannot be read: {0}")]
    Json(String),
    /// A format that this build does not know.
    #[error("the manifest has format {0}, this program knows {FORMAT}: it needs a newer loader")]
    Format(u32),
    /// There is no UKI in what this kind describes.
    #[error("what is of kind {0} has no UKI")]
    NoUki(Kind),
    /// A field with a value that makes no sense.
    #[error("the manifest's {0}")]
    Field(&'static str),
}

impl Manifest {
    /// Reads a payload whose signature has been checked.
    ///
    /// # Errors
    /// [`ManifestError`], if it is not a manifest in every respect.
    pub fn parse(payload: &[u8]) -> Result<Self, ManifestError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(ManifestError::TooLarge(payload.len()));
        }
        let not_json = |error: serde_json::Error| ManifestError::Json(error.to_string());
        let format = json::format_number(payload).map_err(not_json)?;
        if format != FORMAT {
            return Err(ManifestError::Format(format));
        }
        let manifest: Self = serde_json::from_slice(payload).map_err(not_json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes to sign: compact JSON.
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The UKI.
    ///
    /// # Errors
    /// [`ManifestError::NoUki`], in kinds that have none.
    pub fn uki(&self) -> Result<&Uki, ManifestError> {
        self.uki.as_ref().ok_or(ManifestError::NoUki(self.kind))
    }

    /// What a slot's entry in the record says of an image with this manifest. `digest` is that of the
    /// payload, `keyring` the serial of the keyring that it was signed under.
    pub fn slot_contents(&self, digest: Digest, keyring: KeyringSerial) -> SlotContents {
        SlotContents {
            version: self.version,
            level: Level {
                security_version: self.security_version,
                keyring_serial: keyring,
            },
            digest,
        }
    }

    /// Whether the fields make sense together.
    ///
    /// # Errors
    /// [`ManifestError::Field`] for the first that does not.
    pub fn check(&self) -> Result<(), ManifestError> {
        let require = |holds: bool, field: &'static str| {
            if holds {
                Ok(())
            } else {
                Err(ManifestError::Field(field))
            }
        };
        require(self.format == FORMAT, "format is not 1")?;
        require(
            is_name(&self.product),
            "product is not 1 to 64 visible ASCII characters",
        )?;
        require(
            is_name(&self.layout),
            "layout is not 1 to 64 visible ASCII characters",
        )?;
        require(
            self.uki.is_some() == self.kind.has_uki(),
            "UKI is missing, or there in a kind that has none",
        )?;
        self.uki.as_ref().map_or(Ok(()), |uki| {
            require(
                uki.size > 0 && uki.size <= UKI_MAX,
                "UKI is empty or larger than 1 GiB",
            )?;
            require(uki.chunk_size == CHUNK_SIZE, "UKI chunk size is not 4 MiB")?;
            let chunks = u64::try_from(uki.chunks.len()).unwrap_or(u64::MAX);
            require(
                chunks == uki.size.div_ceil(CHUNK_SIZE),
                "number of UKI chunks does not match its size",
            )
        })?;
        require(
            self.root.is_some() == self.kind.has_root(),
            "root is missing, or there in a kind that has none",
        )?;
        require(
            are_events(&self.events),
            "events are more than 64, of a PCR above 23, or without 1 to 64 visible ASCII characters that say of what",
        )?;
        self.root.as_ref().map_or(Ok(()), |root| {
            let blocks = root.data_size.checked_div(BLOCK).unwrap_or(0);
            require(
                blocks > 0 && blocks.checked_mul(BLOCK) == Some(root.data_size),
                "root data size is not a multiple of 4096",
            )?;
            require(
                Geometry::new(blocks).and_then(|geometry| geometry.total_size()) == Some(root.size),
                "root size is not that of its data and verity tree",
            )?;
            require(
                root.chunk_size == CHUNK_SIZE,
                "root chunk size is not 4 MiB",
            )
        })
    }
}

impl Root {
    /// Number of 4096-byte blocks of the filesystem.
    pub fn data_blocks(&self) -> u64 {
        self.data_size.checked_div(BLOCK).unwrap_or(0)
    }
}

fn are_events(events: &[MeasuredEvent]) -> bool {
    let is_event = |it: &MeasuredEvent| it.pcr <= PCR_MAX && is_name(&it.what);
    events.len() <= EVENTS_MAX && events.iter().all(is_event)
}

fn events_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<MeasuredEvent>, D::Error> {
    let events = serde_json::Value::deserialize(from)?;
    let events = serde_json::from_value(events).unwrap_or_default();
    Ok(Some(events)
        .filter(|it: &Vec<_>| are_events(it))
        .unwrap_or_default())
}

fn is_name(text: &str) -> bool {
    (1..=PRODUCT_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_a_whole_without_a_gap() {
        for size in [
            0,
            1,
            BLOCK - 1,
            BLOCK,
            CHUNK_SIZE,
            CHUNK_SIZE + 1,
            3 * CHUNK_SIZE,
        ] {
            let mut end = 0;
            for (chunk, index) in Chunk::all(size).zip(0..) {
                assert_eq!((chunk.index, chunk.offset), (index, end));
                assert!(chunk.len > 0 && chunk.len as u64 <= CHUNK_SIZE, "{chunk:?}");
                assert_eq!(chunk.len_on_disk(), chunk.len.next_multiple_of(4096));
                end += chunk.len as u64;
            }
            assert_eq!(end, size);
        }
        assert_eq!(Chunk::of(CHUNK_SIZE, 1).len, 0, "beyond the end");
        assert_eq!(Chunk::of(u64::MAX, u32::MAX).len as u64, CHUNK_SIZE);
    }
}
