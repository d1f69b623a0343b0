//! Reads disk images and bundles, and says what is in them. Nothing of what is read is believed:
//! whether it is signed is for [`verify`].

mod bundle;
mod disk;
mod state;
mod text;
pub mod verify;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use boot_core::dsse::Envelope;
use boot_core::keyring::Chain;
use boot_core::manifest::Manifest;
use boot_core::{Architecture, Digest, slot_header};
use serde::Serialize;

pub use bundle::{BundleFile, BundleReport};
pub use disk::{DiskReport, SlotReport};
pub use state::{CertificateReport, ProfileReport, StateReport};

use crate::output::gpt;

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Report {
    Disk(Box<DiskReport>),
    Bundle(Box<BundleReport>),
}

/// What a file is, judged by how it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Disk,
    Bundle,
}

/// Tells a bundle from a disk image.
///
/// # Errors
/// It cannot be read, or is something else that is well known.
pub fn kind_of(path: &Path) -> Result<FileKind> {
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.take(8)
        .read_to_end(&mut start)
        .with_context(|| format!("reading {}", path.display()))?;
    if start.is_empty() {
        bail!("{} is empty", path.display());
    }
    if start.starts_with(b"SPBUNDLE") {
        return Ok(FileKind::Bundle);
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        bail!("{} is packed; unpack it first: zstd -d {0}", path.display());
    }
    if start.starts_with(b"QFI\xfb") {
        bail!(
            "{} is a qcow2 image; convert it first: qemu-img convert -O raw {0} disk.raw",
            path.display()
        );
    }
    Ok(FileKind::Disk)
}

impl Report {
    /// Reads a file.
    ///
    /// # Errors
    /// It is neither a disk image with a partition table nor a bundle.
    pub fn read(path: &Path) -> Result<Self> {
        match kind_of(path)? {
            FileKind::Disk => Ok(Self::Disk(Box::new(DiskReport::read(path)?))),
            FileKind::Bundle => Ok(Self::Bundle(Box::new(BundleReport::read(path)?))),
        }
    }
}

/// A manifest as it was found, and who says so.
#[derive(Debug, Serialize)]
pub struct ManifestReport {
    /// SHA-256 of its exact bytes.
    pub digest: Digest,
    pub manifest: Manifest,
    /// Ids of the keys that are said to have signed it.
    pub signed_by: Vec<String>,
}

impl ManifestReport {
    /// Reads an envelope.
    pub fn read(envelope: &[u8]) -> Result<Self> {
        let envelope = Envelope::parse(envelope)?;
        Ok(Self {
            digest: Digest::of(&envelope.payload),
            manifest: Manifest::parse(&envelope.payload)?,
            signed_by: envelope
                .signatures
                .iter()
                .map(|signature| signature.keyid.clone())
                .collect(),
        })
    }
}

/// A keyring chain as it was found.
#[derive(Debug, Serialize)]
pub struct KeyringReport {
    /// In which its keys are written.
    pub format: u32,
    /// How many links it has.
    pub links: usize,
    /// The last of them.
    pub serial: u64,
    /// The product it is for.
    pub product: String,
    /// How many keys must sign a manifest.
    pub threshold: u8,
    /// Ids of the keys that may.
    pub signing: Vec<String>,
}

impl KeyringReport {
    /// Reads a chain.
    pub fn read(chain: &[u8]) -> Result<Self> {
        let Chain { keyring, links } = Chain::read_unverified(chain)?;
        Ok(Self {
            format: keyring.format,
            links,
            serial: keyring.serial.0,
            product: keyring.product,
            threshold: keyring.signing.threshold(),
            signing: keyring
                .signing
                .keys()
                .iter()
                .map(boot_core::PublicKey::keyid)
                .collect(),
        })
    }
}

/// The architecture that the first slot with a manifest names, believed as it stands.
#[must_use]
pub fn architecture_of_disk(path: &Path) -> Option<Architecture> {
    let (image, table) = gpt::open(path).ok()?;
    ["boot-a", "boot-b", "boot-r"].iter().find_map(|label| {
        let mut region = table.region(&image, label).ok()?;
        let parts = slot_header::read_slot(&mut region).ok()?;
        let found = ManifestReport::read(&parts.envelope).ok()?;
        Some(found.manifest.architecture)
    })
}

/// Exactly `length` bytes at `offset`, if the file has them.
fn read_at(file: &File, offset: u64, length: u64, what: &str) -> Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let end = offset.checked_add(length);
    if end.is_none_or(|end| end > size) {
        bail!(
            "{what} should be {length} bytes at {offset}, but the file has only {size} bytes: it is cut short"
        );
    }
    let mut bytes = vec![0; usize::try_from(length)?];
    file.read_exact_at(&mut bytes, offset)
        .with_context(|| format!("reading {what}"))?;
    Ok(bytes)
}
