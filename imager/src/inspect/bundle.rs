//! Bundles.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::bundle::{FrameTable, HEADER_SIZE, Header};
use serde::Serialize;

use super::{KeyringReport, ManifestReport, read_at};

/// A bundle, opened: everything before its frames.
#[derive(Debug)]
pub struct BundleFile {
    pub file: File,
    pub header: Header,
    pub envelope: Vec<u8>,
    pub keyring: Vec<u8>,
    /// Where the frames are.
    pub table: FrameTable,
    pub leaves: Vec<u8>,
}

impl BundleFile {
    /// Reads what comes before the frames.
    ///
    /// # Errors
    /// It is no bundle, is damaged, or is cut short.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        Self::read(file).with_context(|| format!("reading the bundle {}", path.display()))
    }

    fn read(file: File) -> Result<Self> {
        let start = read_at(&file, 0, HEADER_SIZE as u64, "the header")?;
        let start = start.first_chunk().context("a short header")?;
        let header = Header::decode(start)?;
        let part = |offset, length: u64, what| read_at(&file, offset, length, what);
        let envelope = part(
            header.envelope_offset(),
            header.envelope_length.into(),
            "the manifest",
        )?;
        let keyring = part(
            header.keyring_offset(),
            header.keyring_length.into(),
            "the keyring chain",
        )?;
        let table = part(
            header.table_offset(),
            header.table_length(),
            "the frame table",
        )?;
        let leaves = part(
            header.leaves_offset(),
            header.leaves_length,
            "the verity leaves",
        )?;
        Ok(Self {
            header,
            envelope,
            keyring,
            table: FrameTable::decode(&table)?,
            leaves,
            file,
        })
    }

    /// How long the file must be.
    #[must_use]
    pub fn expected_size(&self) -> u64 {
        self.header
            .frames_offset()
            .saturating_add(self.table.total())
    }

    /// The bytes of one frame; empty for a chunk that is all zero.
    ///
    /// # Errors
    /// There is no such frame, or the file is cut short.
    pub fn frame(&self, index: u32) -> Result<Vec<u8>> {
        let (start, length) = self
            .table
            .frame(index)
            .with_context(|| format!("there is no frame {index}"))?;
        let offset = self.header.frames_offset().saturating_add(start);
        read_at(&self.file, offset, length.into(), &format!("frame {index}"))
    }
}

#[derive(Debug, Serialize)]
pub struct BundleReport {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes that it should have.
    pub expected_size: u64,
    /// Frames of the UKI.
    pub uki_frames: u32,
    /// Frames of the root.
    pub root_frames: u32,
    /// Bytes of all frames.
    pub frames_size: u64,
    /// Frames that are not stored because their chunk is all zero.
    pub zero_frames: usize,
    #[serde(flatten)]
    pub manifest: ManifestReport,
    pub keyring: KeyringReport,
}

impl BundleReport {
    /// Reads a bundle's facts.
    ///
    /// # Errors
    /// It is no bundle, is damaged, or is cut short.
    pub fn read(path: &Path) -> Result<Self> {
        let bundle = BundleFile::open(path)?;
        let what = || format!("reading the bundle {}", path.display());
        Ok(Self {
            size: bundle.file.metadata().with_context(what)?.len(),
            expected_size: bundle.expected_size(),
            uki_frames: bundle.header.uki_frames,
            root_frames: bundle.header.root_frames,
            frames_size: bundle.table.total(),
            zero_frames: bundle
                .table
                .lengths()
                .iter()
                .filter(|length| **length == 0)
                .count(),
            manifest: ManifestReport::read(&bundle.envelope).with_context(what)?,
            keyring: KeyringReport::read(&bundle.keyring).with_context(what)?,
        })
    }
}
