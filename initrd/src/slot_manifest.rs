//! The slot that was started: its manifest must be the one that the loader verified, and name the root that the kernel's
//! command line names.
//!
//! The loader has checked the signatures. Here it is only made sure that what lies on this disk is the same manifest,
//! byte for byte, and that it belongs to this kernel: a kernel and a root from different slots are never put together.

use boot_core::dsse::Envelope;
use boot_core::manifest::{Manifest, Root};
use boot_core::slot_header::{ReadSlotError, read_slot};
use boot_core::{Device, Digest, Target};

/// Why a slot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The header or what it points at cannot be read.
    #[error("{0}")]
    Read(String),
    /// The header says that it belongs elsewhere.
    #[error("its header says {found}, but {expected} was started")]
    Slot {
        /// What the header says.
        found: Target,
        /// What was started.
        expected: Target,
    },
    /// Another manifest.
    #[error("its manifest has the digest {found}, but the loader verified {expected}")]
    Digest {
        /// Digest of what lies on the disk.
        found: Digest,
        /// Digest in the hand-over.
        expected: Digest,
    },
    /// The envelope or the manifest does not parse.
    #[error("{0}")]
    Parse(String),
    /// The manifest has no root.
    #[error("its manifest names no root filesystem")]
    NoRoot,
    /// Kernel and root belong to different images.
    #[error("its manifest names the root hash {manifest}, but this kernel was built for {kernel}")]
    RootHash {
        /// In the manifest.
        manifest: String,
        /// On the command line.
        kernel: String,
    },
    /// The root does not fit.
    #[error("its root needs {needs} bytes, but the partition has {has}")]
    DoesNotFit {
        /// Size in the manifest.
        needs: u64,
        /// Size of the partition.
        has: u64,
    },
}

impl<E: core::fmt::Debug + core::fmt::Display> From<ReadSlotError<E>> for SlotError {
    fn from(error: ReadSlotError<E>) -> Self {
        Self::Read(error.to_string())
    }
}

/// Reads a slot's manifest and checks that it has the digest that the loader verified.
///
/// # Errors
/// When it cannot be read, is another slot's, or is another manifest.
pub fn manifest<D: Device>(
    device: &mut D,
    target: Target,
    digest: &Digest,
) -> Result<Manifest, SlotError> {
    let parts = read_slot(device)?;
    if parts.header.slot != target {
        return Err(SlotError::Slot {
            found: parts.header.slot,
            expected: target,
        });
    }
    let envelope =
        Envelope::parse(&parts.envelope).map_err(|error| SlotError::Parse(error.to_string()))?;
    let found = Digest::of(&envelope.payload);
    if found != *digest {
        return Err(SlotError::Digest {
            found,
            expected: *digest,
        });
    }
    Manifest::parse(&envelope.payload).map_err(|error| SlotError::Parse(error.to_string()))
}

/// The root that a manifest names, if it is the one of this kernel and fits its partition of `partition` bytes. Pure.
///
/// # Errors
/// When it is another, or does not fit.
pub fn root<'a>(
    manifest: &'a Manifest,
    kernel: &str,
    partition: u64,
) -> Result<&'a Root, SlotError> {
    let root = manifest.root.as_ref().ok_or(SlotError::NoRoot)?;
    let hash = root.hash.to_string();
    if hash != kernel {
        return Err(SlotError::RootHash {
            manifest: hash,
            kernel: kernel.to_owned(),
        });
    }
    if root.size > partition || root.data_size >= root.size {
        return Err(SlotError::DoesNotFit {
            needs: root.size,
            has: partition,
        });
    }
    Ok(root)
}
