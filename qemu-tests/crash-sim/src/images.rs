//! Images of a few kilobytes, their bundles, and what becomes of a machine that starts one.

use anyhow::{Context as _, Result};
use boot_core::bundle::{FrameTable, Header};
use boot_core::floor::Level;
use boot_core::manifest::{CHUNK_SIZE, Kind, Root};
use boot_core::slot_header::{self, SlotHeader, UKI_OFFSET};
use boot_core::test_support::{Image, Signers, manifest};
use boot_core::types::Salt;
use boot_core::verity::{BlockHasher, TreeBuilder};
use boot_core::{Device as _, Digest, Target};
use bootctl::failure::Failure;
use bootctl::source::Source;

use crate::disk::{Contents, Part, Partition};

const SALT: Salt = Salt([3; 32]);

/// What a machine that starts an image comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// The health gate finds everything well.
    Healthy,
    /// The health gate refuses it.
    Unhealthy,
    /// Userland never comes up: a hang or a panic, and a restart.
    Silent,
}

/// An image, and all that is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// How it behaves.
    pub(crate) nature: Nature,
    /// Manifest, signatures, UKI.
    pub(crate) image: Image,
    /// The root partition: data and verity tree.
    pub(crate) root: Vec<u8>,
    /// What `bootctl install` reads.
    pub(crate) bundle: Vec<u8>,
}

impl Sample {
    /// A system image of two blocks of UKI and `blocks` of root.
    ///
    /// # Errors
    /// If one cannot be made of what is given.
    pub(crate) fn new(
        version: &str,
        security_version: u64,
        nature: Nature,
        blocks: usize,
    ) -> Result<Self> {
        Self::under_keyring(1, version, security_version, nature, blocks)
    }

    /// The same, signed under the keyring of this serial.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(crate) fn under_keyring(
        serial: u64,
        version: &str,
        security_version: u64,
        nature: Nature,
        blocks: usize,
    ) -> Result<Self> {
        let uki = uki(version);
        let data: Vec<u8> = version.bytes().rev().cycle().take(blocks * 4096).collect();
        let mut leaves = Vec::new();
        BlockHasher::new(&SALT).append_leaves(&data, &mut leaves);
        let mut builder = TreeBuilder::new(&SALT);
        builder.push(&leaves);
        let tree = builder.finish().context("a root without leaves")?;
        let mut root = data.clone();
        root.extend(tree.to_bytes(&leaves));
        let mut manifest = manifest(Kind::System, version, security_version, &uki);
        manifest.root = Some(Root {
            hash: tree.root,
            salt: SALT,
            data_size: data.len() as u64,
            size: root.len() as u64,
            chunk_size: CHUNK_SIZE,
        });
        let signers = Signers {
            serial,
            ..Signers::default()
        };
        let image = Image::signed(manifest, uki, signers);
        let bundle = bundle(&image, &data, &leaves)?;
        Ok(Self {
            nature,
            image,
            root,
            bundle,
        })
    }

    /// A recovery image: two blocks of UKI.
    ///
    /// # Errors
    /// If one cannot be made.
    pub(crate) fn recovery(version: &str, security_version: u64) -> Result<Self> {
        let uki = uki(version);
        let manifest = manifest(Kind::Recovery, version, security_version, &uki);
        let image = Image::signed(manifest, uki, Signers::default());
        let bundle = bundle(&image, &[], &[])?;
        Ok(Self {
            nature: Nature::Healthy,
            image,
            root: Vec::new(),
            bundle,
        })
    }

    /// How new it is.
    pub(crate) fn level(&self) -> Level {
        self.image.contents().level
    }

    /// Digest of its manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.image.digest
    }

    /// Writes it into the partitions of a slot, as an image builder does; recovery has no `root`.
    ///
    /// # Errors
    /// If it does not fit.
    pub(crate) fn write_to(
        &self,
        target: Target,
        mut boot: Partition,
        root: Option<Partition>,
    ) -> Result<()> {
        let Image {
            envelope,
            keyring,
            uki,
            ..
        } = &self.image;
        let header = SlotHeader::new(
            target,
            envelope.len(),
            keyring.len(),
            uki.len() as u64,
            self.digest(),
        )
        .context("the image does not fit into a slot")?;
        slot_header::write_parts(&mut boot, &header, envelope, keyring)?;
        boot.write_at(UKI_OFFSET, &padded(uki))?;
        slot_header::write_header(&mut boot, &header)?;
        if let Some(mut root) = root {
            root.write_at(0, &self.root)?;
        }
        Ok(())
    }

    /// Whether UKI and root of `target` are this image's, to the byte.
    pub(crate) fn is_whole(&self, contents: &Contents, target: Target) -> bool {
        let root = |slot| same(contents, Part::Root(slot), 0, &self.root);
        self.has_its_uki(contents, target) && target.slot().is_none_or(root)
    }

    /// Whether the UKI of `target` is this image's.
    pub(crate) fn has_its_uki(&self, contents: &Contents, target: Target) -> bool {
        same(contents, Part::Boot(target), UKI_OFFSET, &self.image.uki)
    }
}

fn same(contents: &Contents, part: Part, offset: u64, wanted: &[u8]) -> bool {
    let mut found = vec![0; wanted.len()];
    contents.read(part, offset, &mut found);
    found == wanted
}

fn uki(version: &str) -> Vec<u8> {
    version.bytes().cycle().take(5000).collect()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4096), 0);
    padded
}

/// A bundle of one frame of UKI and, where there is a root, one of it.
fn bundle(image: &Image, data: &[u8], leaves: &[u8]) -> Result<Vec<u8>> {
    let mut frames = vec![zstd::bulk::compress(&image.uki, 1)?];
    if !data.is_empty() {
        frames.push(zstd::bulk::compress(data, 1)?);
    }
    let header = Header {
        flags: 0,
        envelope_length: u32::try_from(image.envelope.len())?,
        keyring_length: u32::try_from(image.keyring.len())?,
        uki_frames: 1,
        root_frames: u32::from(!data.is_empty()),
        leaves_length: leaves.len() as u64,
    };
    let lengths = frames.iter().map(|frame| frame.len() as u32).collect();
    let mut bytes = header.encode().to_vec();
    bytes.extend(&image.envelope);
    bytes.extend(&image.keyring);
    bytes.extend(FrameTable::new(lengths)?.encode());
    bytes.extend(leaves);
    bytes.extend(frames.into_iter().flatten());
    Ok(bytes)
}

/// A bundle in memory.
pub(crate) struct InMemory<'a>(pub(crate) &'a [u8]);

impl Source for InMemory<'_> {
    fn name(&self) -> &str {
        "memory"
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> bootctl::failure::Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.0.get(offset..)?.get(..buf.len()));
        buf.copy_from_slice(part.ok_or_else(|| Failure::source("past the end"))?);
        Ok(())
    }

    fn ends_at(&mut self, offset: u64) -> bootctl::failure::Result<bool> {
        Ok(offset == self.0.len() as u64)
    }
}
