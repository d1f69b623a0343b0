//! The bundle: an image on its way to a slot. Details: docs/formats/bundle.md.
//!
//! ```text
//! header 64 │ envelope │ keyring chain │ frame table │ verity leaves │ frames, the UKI's first
//! ```
//!
//! Everything that says whether the bundle may be installed comes before what is large. Each frame is
//! one zstd frame of one chunk of at most 4 MiB; a chunk that is all zero has a frame of length 0.

use alloc::vec::Vec;

use crate::{
    bytes::{self, disk_len, field, memory_len, put, u16_at, u32_at, u64_at},
    dsse::ENVELOPE_MAX,
    keyring::CHAIN_MAX,
    manifest::{CHUNK_SIZE, Manifest, UKI_MAX},
    verity::HASH,
};

/// Bytes of the header.
pub const HEADER_SIZE: usize = 64;

/// Longest frame: an incompressible chunk and zstd's overhead.
pub const FRAME_MAX: u32 = (4 << 20) + (64 << 10);

/// zstd's window is at most this power of two.
pub const WINDOW_LOG_MAX: u32 = 23;

/// Most frames of the root: 256 GiB.
pub const ROOT_FRAMES_MAX: u32 = 1 << 16;

/// What a bundle begins with.
pub const MAGIC: [u8; 8] = *b"SPBUNDLE";
const FORMAT: u16 = 1;

/// Where the fields of the header lie.
mod at {
    pub(super) const FORMAT: usize = 8;
    pub(super) const FLAGS: usize = 10;
    pub(super) const CRC: usize = 12;
    pub(super) const ENVELOPE_LENGTH: usize = 16;
    pub(super) const KEYRING_LENGTH: usize = 20;
    pub(super) const UKI_FRAMES: usize = 24;
    pub(super) const ROOT_FRAMES: usize = 28;
    pub(super) const LEAVES_LENGTH: usize = 32;
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// No flag is defined; readers refuse those they do not know.
    pub flags: u16,
    /// Bytes of the manifest's envelope.
    pub envelope_length: u32,
    /// Bytes of the keyring chain.
    pub keyring_length: u32,
    /// Frames of the UKI; 0 in kinds that have none.
    pub uki_frames: u32,
    /// Frames of the root's data.
    pub root_frames: u32,
    /// Bytes of the verity leaves.
    pub leaves_length: u64,
}

/// Why bytes are not a bundle, or not that of its manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Something else.
    #[error("this is not a Sternpost bundle")]
    Magic,
    /// Damaged.
    #[error("the bundle's header is damaged")]
    Checksum,
    /// Written by a version that this build does not know.
    #[error("the bundle has format {0}, this program knows {FORMAT}")]
    Format(u16),
    /// Flags that this build does not know.
    #[error("the bundle has flags {0:#06x}, which this program does not know")]
    Flags(u16),
    /// A part that is empty or too long.
    #[error("the bundle's {0} is empty or too long")]
    Length(&'static str),
    /// A part that does not fit the manifest.
    #[error("the bundle's {0} does not fit its manifest")]
    Mismatch(&'static str),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`BundleError`], if it is none, or a part is empty or too long.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Self, BundleError> {
        if field(bytes, 0) != MAGIC {
            return Err(BundleError::Magic);
        }
        if !bytes::is_sealed(bytes, at::CRC) {
            return Err(BundleError::Checksum);
        }
        let format = u16_at(bytes, at::FORMAT);
        if format != FORMAT {
            return Err(BundleError::Format(format));
        }
        let header = Self {
            flags: u16_at(bytes, at::FLAGS),
            envelope_length: u32_at(bytes, at::ENVELOPE_LENGTH),
            keyring_length: u32_at(bytes, at::KEYRING_LENGTH),
            uki_frames: u32_at(bytes, at::UKI_FRAMES),
            root_frames: u32_at(bytes, at::ROOT_FRAMES),
            leaves_length: u64_at(bytes, at::LEAVES_LENGTH),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.flags != 0 {
            return Err(BundleError::Flags(self.flags));
        }
        let leaves_max = u64::from(ROOT_FRAMES_MAX).saturating_mul(leaves_per_chunk());
        let parts = [
            (
                "manifest",
                self.envelope_length.into(),
                1,
                disk_len(ENVELOPE_MAX),
            ),
            (
                "keyring chain",
                self.keyring_length.into(),
                1,
                disk_len(CHAIN_MAX),
            ),
            (
                "number of UKI frames",
                self.uki_frames.into(),
                0,
                UKI_MAX.div_ceil(CHUNK_SIZE),
            ),
            (
                "number of root frames",
                self.root_frames.into(),
                0,
                ROOT_FRAMES_MAX.into(),
            ),
            ("verity leaves", self.leaves_length, 0, leaves_max),
        ];
        for (name, length, min, max) in parts {
            if !(min..=max).contains(&length) {
                return Err(BundleError::Length(name));
            }
        }
        Ok(())
    }

    /// The bytes to write.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, at::FORMAT, &FORMAT.to_le_bytes());
        put(&mut bytes, at::FLAGS, &self.flags.to_le_bytes());
        put(
            &mut bytes,
            at::ENVELOPE_LENGTH,
            &self.envelope_length.to_le_bytes(),
        );
        put(
            &mut bytes,
            at::KEYRING_LENGTH,
            &self.keyring_length.to_le_bytes(),
        );
        put(&mut bytes, at::UKI_FRAMES, &self.uki_frames.to_le_bytes());
        put(&mut bytes, at::ROOT_FRAMES, &self.root_frames.to_le_bytes());
        put(
            &mut bytes,
            at::LEAVES_LENGTH,
            &self.leaves_length.to_le_bytes(),
        );
        bytes::seal(&mut bytes, at::CRC);
        bytes
    }

    /// Where the envelope starts, in bytes from the start of the bundle.
    pub fn envelope_offset(&self) -> u64 {
        disk_len(HEADER_SIZE)
    }

    /// Where the keyring chain starts.
    pub fn keyring_offset(&self) -> u64 {
        self.envelope_offset()
            .saturating_add(self.envelope_length.into())
    }

    /// Where the frame table starts.
    pub fn table_offset(&self) -> u64 {
        self.keyring_offset()
            .saturating_add(self.keyring_length.into())
    }

    /// Bytes of the frame table.
    pub fn table_length(&self) -> u64 {
        u64::from(self.uki_frames)
            .saturating_add(self.root_frames.into())
            .saturating_mul(4)
    }

    /// Where the verity leaves start.
    pub fn leaves_offset(&self) -> u64 {
        self.table_offset().saturating_add(self.table_length())
    }

    /// Where the first frame starts.
    pub fn frames_offset(&self) -> u64 {
        self.leaves_offset().saturating_add(self.leaves_length)
    }

    /// Whether frames and leaves are as many as the verified `manifest` needs.
    pub fn check_against(&self, manifest: &Manifest) -> Result<(), BundleError> {
        let uki = manifest.uki.as_ref();
        let uki_frames = disk_len(uki.map_or(0, |uki| uki.chunks.len()));
        let (data_size, blocks) = manifest
            .root
            .as_ref()
            .map_or((0, 0), |root| (root.data_size, root.data_blocks()));
        let parts = [
            (
                "number of UKI frames",
                u64::from(self.uki_frames),
                uki_frames,
            ),
            (
                "number of root frames",
                self.root_frames.into(),
                data_size.div_ceil(CHUNK_SIZE),
            ),
            (
                "verity leaves",
                self.leaves_length,
                blocks.saturating_mul(disk_len(HASH)),
            ),
        ];
        for (name, found, expected) in parts {
            if found != expected {
                return Err(BundleError::Mismatch(name));
            }
        }
        Ok(())
    }
}

fn leaves_per_chunk() -> u64 {
    CHUNK_SIZE
        .checked_div(crate::verity::BLOCK)
        .unwrap_or(0)
        .saturating_mul(disk_len(HASH))
}

/// The compressed length of each frame, the UKI's first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameTable {
    lengths: Vec<u32>,
    /// Where each frame starts, from the start of the frames; one more than there are frames.
    starts: Vec<u64>,
}

impl FrameTable {
    /// From the lengths.
    ///
    /// # Errors
    /// [`BundleError::Length`], if a frame is too long.
    pub fn new(lengths: Vec<u32>) -> Result<Self, BundleError> {
        let mut starts = Vec::with_capacity(lengths.len().saturating_add(1));
        let mut start: u64 = 0;
        starts.push(start);
        for length in &lengths {
            if *length > FRAME_MAX {
                return Err(BundleError::Length("frame"));
            }
            start = start.saturating_add((*length).into());
            starts.push(start);
        }
        Ok(Self { lengths, starts })
    }

    /// Reads the table, whose length is [`Header::table_length`].
    ///
    /// # Errors
    /// [`BundleError::Length`], if it is not whole or a frame is too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        if !bytes.len().is_multiple_of(4) {
            return Err(BundleError::Length("frame table"));
        }
        Self::new(
            bytes
                .chunks_exact(4)
                .map(|length| u32_at(length, 0))
                .collect(),
        )
    }

    /// The bytes to write.
    pub fn encode(&self) -> Vec<u8> {
        self.lengths
            .iter()
            .flat_map(|length| length.to_le_bytes())
            .collect()
    }

    /// The lengths.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// Where frame `index` starts, from [`Header::frames_offset`], and its length; length 0 stands for
    /// a chunk that is all zero.
    pub fn frame(&self, index: u32) -> Option<(u64, u32)> {
        let index = memory_len(index.into());
        Some((*self.starts.get(index)?, *self.lengths.get(index)?))
    }

    /// Bytes of all frames.
    pub fn total(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }
}
