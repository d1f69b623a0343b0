//! The start of `boot-a`, `boot-b` and `boot-r`: where manifest, keyring chain and UKI lie.
//!
//! The header is zeroed before anything else of a slot changes and written after everything else is
//! on the disk, so that a half-written slot has none. It is not authenticated: whatever it says is
//! checked against the manifest. Byte by byte: docs/formats/slot-header.md.

use alloc::{vec, vec::Vec};
use core::fmt::{Debug, Display};

use crate::{
    bytes::{self, STRUCTURE, field, memory_len, put, u8_at, u16_at, u32_at, u64_at},
    device::{Device, block_len, read_structure, write_structure},
    dsse::{DsseError, ENVELOPE_MAX, Envelope},
    keyring::CHAIN_MAX,
    manifest::{Manifest, ManifestError},
    slot::Target,
    types::Digest,
};

/// Where the envelope lies in slots that are written today.
pub const ENVELOPE_OFFSET: u32 = 4096;

/// Where the UKI lies in slots that are written today.
pub const UKI_OFFSET: u64 = 1 << 20;

/// What the parts of a slot are aligned to.
pub const ALIGNMENT: u64 = 4096;

const MAGIC: [u8; 8] = *b"SPSLOTHD";
const FORMAT: u16 = 1;

/// Where the fields of a header lie.
mod at {
    pub(super) const FORMAT: usize = 8;
    pub(super) const SLOT: usize = 10;
    pub(super) const CRC: usize = 12;
    pub(super) const ENVELOPE_OFFSET: usize = 16;
    pub(super) const ENVELOPE_LENGTH: usize = 20;
    pub(super) const KEYRING_OFFSET: usize = 24;
    pub(super) const KEYRING_LENGTH: usize = 28;
    pub(super) const UKI_OFFSET: usize = 32;
    pub(super) const UKI_LENGTH: usize = 40;
    pub(super) const MANIFEST_DIGEST: usize = 48;
}

/// The header, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// The slot it was written for.
    pub slot: Target,
    /// Where the manifest's envelope starts, in bytes.
    pub envelope_offset: u32,
    /// Its length.
    pub envelope_length: u32,
    /// Where the keyring chain starts.
    pub keyring_offset: u32,
    /// Its length.
    pub keyring_length: u32,
    /// Where the UKI starts.
    pub uki_offset: u64,
    /// Its length.
    pub uki_length: u64,
    /// SHA-256 of the envelope's payload.
    pub manifest_digest: Digest,
}

/// Why a slot has no header that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Zeroed, or never written: nothing is installed, or an installation has not finished.
    #[error("no slot header: nothing is completely installed")]
    Empty,
    /// Something else than a header.
    #[error("no slot header, but other data")]
    Magic,
    /// Torn or damaged.
    #[error("the slot header's checksum does not match")]
    Checksum,
    /// Written by a version that this build does not know.
    #[error("the slot header has format {0}, this program knows {FORMAT}")]
    Format(u16),
    /// A slot code that means nothing.
    #[error("the slot header names slot {0}, which does not exist")]
    Slot(u8),
    /// A part that is not aligned, too long, or not within the partition.
    #[error("the slot header's {0} is misplaced or too long")]
    Place(&'static str),
}

/// A slot's header and what it points to, except for the UKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotParts {
    /// The header.
    pub header: SlotHeader,
    /// The manifest's envelope, as it is on the disk.
    pub envelope: Vec<u8>,
    /// The keyring chain, as it is on the disk.
    pub keyring: Vec<u8>,
}

/// Why a slot cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadSlotError<E: Debug + Display> {
    /// There is no header to go by.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The device refused.
    #[error("cannot be read: {0}")]
    Device(E),
}

/// Why an envelope holds no manifest that can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoManifest {
    /// It is no envelope.
    #[error(transparent)]
    Envelope(#[from] DsseError),
    /// What is in it is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl SlotParts {
    /// The manifest and its digest, whoever signed it: for those who know the digest that it must have, or who only
    /// look.
    pub fn manifest_unverified(&self) -> Result<(Manifest, Digest), NoManifest> {
        let envelope = Envelope::parse(&self.envelope)?;
        let manifest = Manifest::parse(&envelope.payload)?;
        Ok((manifest, Digest::of(&envelope.payload)))
    }
}

impl SlotHeader {
    /// The header of a slot in which the parts lie as they are written today. Returns none if a part
    /// is empty or longer than its place.
    pub fn new(
        slot: Target,
        envelope_length: usize,
        keyring_length: usize,
        uki_length: u64,
        manifest_digest: Digest,
    ) -> Option<Self> {
        let envelope_length = u32::try_from(envelope_length).ok()?;
        let keyring_length = u32::try_from(keyring_length).ok()?;
        let keyring_offset = ENVELOPE_OFFSET
            .checked_add(envelope_length)?
            .checked_next_multiple_of(u32::try_from(ALIGNMENT).ok()?)?;
        let header = Self {
            slot,
            envelope_offset: ENVELOPE_OFFSET,
            envelope_length,
            keyring_offset,
            keyring_length,
            uki_offset: UKI_OFFSET,
            uki_length,
            manifest_digest,
        };
        let end = UKI_OFFSET.checked_add(uki_length)?;
        header
            .check(end.checked_next_multiple_of(ALIGNMENT)?)
            .ok()?;
        Some(header)
    }

    /// Reads a header. Whether its parts lie within the partition is for [`check`](Self::check).
    pub fn decode(bytes: &[u8; STRUCTURE]) -> Result<Self, HeaderError> {
        if field(bytes, 0) != MAGIC {
            let zero = bytes.iter().all(|byte| *byte == 0);
            return Err(if zero {
                HeaderError::Empty
            } else {
                HeaderError::Magic
            });
        }
        if !bytes::is_sealed(bytes, at::CRC) {
            return Err(HeaderError::Checksum);
        }
        let format = u16_at(bytes, at::FORMAT);
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        let code = u8_at(bytes, at::SLOT);
        Ok(Self {
            slot: Target::from_code(code).ok_or(HeaderError::Slot(code))?,
            envelope_offset: u32_at(bytes, at::ENVELOPE_OFFSET),
            envelope_length: u32_at(bytes, at::ENVELOPE_LENGTH),
            keyring_offset: u32_at(bytes, at::KEYRING_OFFSET),
            keyring_length: u32_at(bytes, at::KEYRING_LENGTH),
            uki_offset: u64_at(bytes, at::UKI_OFFSET),
            uki_length: u64_at(bytes, at::UKI_LENGTH),
            manifest_digest: Digest(field(bytes, at::MANIFEST_DIGEST)),
        })
    }

    /// The bytes to write.
    pub fn encode(&self) -> [u8; STRUCTURE] {
        let mut bytes = [0; STRUCTURE];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, at::FORMAT, &FORMAT.to_le_bytes());
        put(&mut bytes, at::SLOT, &[self.slot.code()]);
        put(
            &mut bytes,
            at::ENVELOPE_OFFSET,
            &self.envelope_offset.to_le_bytes(),
        );
        put(
            &mut bytes,
            at::ENVELOPE_LENGTH,
            &self.envelope_length.to_le_bytes(),
        );
        put(
            &mut bytes,
            at::KEYRING_OFFSET,
            &self.keyring_offset.to_le_bytes(),
        );
        put(
            &mut bytes,
            at::KEYRING_LENGTH,
            &self.keyring_length.to_le_bytes(),
        );
        put(&mut bytes, at::UKI_OFFSET, &self.uki_offset.to_le_bytes());
        put(&mut bytes, at::UKI_LENGTH, &self.uki_length.to_le_bytes());
        put(&mut bytes, at::MANIFEST_DIGEST, &self.manifest_digest.0);
        bytes::seal(&mut bytes, at::CRC);
        bytes
    }

    /// Whether every part is aligned, not too long, and within a partition of `size` bytes.
    ///
    /// # Errors
    /// [`HeaderError::Place`] for the first part that is not.
    pub fn check(&self, size: u64) -> Result<(), HeaderError> {
        let parts = [
            (
                "manifest",
                self.envelope_offset.into(),
                self.envelope_length.into(),
                disk(ENVELOPE_MAX),
            ),
            (
                "keyring chain",
                self.keyring_offset.into(),
                self.keyring_length.into(),
                disk(CHAIN_MAX),
            ),
            ("UKI", self.uki_offset, self.uki_length, u64::MAX),
        ];
        for (name, offset, length, max) in parts {
            let aligned = offset >= ALIGNMENT && offset.is_multiple_of(ALIGNMENT);
            let end = offset
                .checked_add(length)
                .and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            let within = end.is_some_and(|end| end <= size);
            if !aligned || !within || length == 0 || length > max {
                return Err(HeaderError::Place(name));
            }
        }
        Ok(())
    }
}

fn disk(len: usize) -> u64 {
    bytes::disk_len(len)
}

/// Reads a slot's header, envelope and keyring chain. Nothing of it is verified.
///
/// # Errors
/// [`ReadSlotError`], if there is no header or the device refuses.
pub fn read_slot<D: Device>(device: &mut D) -> Result<SlotParts, ReadSlotError<D::Error>> {
    let header = read_header(device)?;
    let envelope = read_part(device, header.envelope_offset, header.envelope_length)?;
    let keyring = read_part(device, header.keyring_offset, header.keyring_length)?;
    Ok(SlotParts {
        header,
        envelope,
        keyring,
    })
}

/// Reads and checks a slot's header alone.
///
/// # Errors
/// [`ReadSlotError`], if there is no header or the device refuses.
pub fn read_header<D: Device>(device: &mut D) -> Result<SlotHeader, ReadSlotError<D::Error>> {
    let bytes = read_structure(device, 0).map_err(ReadSlotError::Device)?;
    let header = SlotHeader::decode(&bytes)?;
    header.check(device.size())?;
    Ok(header)
}

/// Zeroes a slot's header and flushes: the slot holds nothing from here on.
pub fn clear_header<D: Device>(device: &mut D) -> Result<(), D::Error> {
    write_structure(device, 0, &[0; STRUCTURE])?;
    device.flush()
}

/// Writes envelope and keyring chain to the places that `header` names, and flushes.
pub fn write_parts<D: Device>(
    device: &mut D,
    header: &SlotHeader,
    envelope: &[u8],
    keyring: &[u8],
) -> Result<(), D::Error> {
    for (offset, part) in [
        (header.envelope_offset, envelope),
        (header.keyring_offset, keyring),
    ] {
        let mut padded = part.to_vec();
        padded.resize(part.len().next_multiple_of(memory_len(ALIGNMENT)), 0);
        device.write_at(offset.into(), &padded)?;
    }
    device.flush()
}

/// Writes a slot's header and flushes: the last thing that an installation writes to the slot.
pub fn write_header<D: Device>(device: &mut D, header: &SlotHeader) -> Result<(), D::Error> {
    device.flush()?;
    write_structure(device, 0, &header.encode())?;
    device.flush()
}

fn read_part<D: Device>(
    device: &mut D,
    offset: u32,
    length: u32,
) -> Result<Vec<u8>, ReadSlotError<D::Error>> {
    let length = memory_len(length.into());
    let rounded = length
        .checked_next_multiple_of(block_len(device))
        .unwrap_or(length);
    let mut part = vec![0; rounded];
    device
        .read_at(offset.into(), &mut part)
        .map_err(ReadSlotError::Device)?;
    part.truncate(length);
    Ok(part)
}
