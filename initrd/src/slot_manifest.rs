//! The slot that was started: its manifest must be the one that the loader verified, and name the root that the kernel's
//! command line names.
//!
//! The loader has checked the signatures. Here it is only made sure that what lies on this disk is the same manifest,
//! byte for byte, and that it belongs to this kernel: a kernel and a root from different slots are never put together.

use core::fmt::{Debug, Display};

use boot_core::floor::{Level, NotAdmitted};
use boot_core::keyring::{Chain, KeyringError};
use boot_core::manifest::Root;
use boot_core::slot_header::{NoManifest, ReadSlotError, read_slot};
use boot_core::{Device, Digest, RootHash, Target};

/// Why a slot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SlotError<E: Debug + Display> {
    /// The header or what it points at cannot be read.
    #[error(transparent)]
    Read(#[from] ReadSlotError<E>),
    /// The header says that it belongs elsewhere.
    #[error("its header says {found}, but {expected} was started")]
    Slot {
        /// What the header says.
        found: Target,
        /// What was started.
        expected: Target,
    },
    /// The envelope or the manifest does not parse.
    #[error(transparent)]
    Manifest(#[from] NoManifest),
    /// Another manifest.
    #[error("its manifest has the digest {found}, but the loader verified {expected}")]
    Digest {
        /// Digest of what lies on the disk.
        found: Digest,
        /// Digest in the hand-over.
        expected: Digest,
    },
    /// The keyring chain does not parse.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Below the floor that the loader handed over.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The manifest has no root.
    #[error("its manifest names no root filesystem")]
    NoRoot,
    /// Kernel and root belong to different images.
    #[error("its manifest names the root hash {manifest}, but this kernel was built for {kernel}")]
    RootHash {
        manifest: RootHash,
        /// On the command line.
        kernel: RootHash,
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

/// The root that the manifest in `slot` names, if that is the manifest with the digest that the loader verified for
/// `target`, and not below the `floor` that it handed over, and its root the one of this kernel, which fits its partition
/// of `partition` bytes.
///
/// # Errors
/// When the manifest cannot be read, is another slot's, or is another; when the root is another, or does not fit.
pub fn root<D: Device>(
    slot: &mut D,
    target: Target,
    verified: &Digest,
    floor: Level,
    kernel: &RootHash,
    partition: u64,
) -> Result<Root, SlotError<D::Error>> {
    let parts = read_slot(slot)?;
    if parts.header.slot != target {
        return Err(SlotError::Slot {
            found: parts.header.slot,
            expected: target,
        });
    }
    let (manifest, found) = parts.manifest_unverified()?;
    if found != *verified {
        return Err(SlotError::Digest {
            found,
            expected: *verified,
        });
    }
    floor.admits(Level {
        security_version: manifest.security_version,
        keyring_serial: Chain::read_unverified(&parts.keyring)?.keyring.serial,
    })?;
    let root = manifest.root.ok_or(SlotError::NoRoot)?;
    if root.hash != *kernel {
        return Err(SlotError::RootHash {
            manifest: root.hash,
            kernel: *kernel,
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

#[cfg(test)]
mod tests {
    use boot_core::manifest::Kind;
    use boot_core::test_support::{Image, Signers, manifest};
    use boot_core::verity::Geometry;

    use super::*;

    #[test]
    fn what_is_below_the_floor_that_was_handed_over_is_not_taken() {
        let uki = vec![1; 5000];
        let mut manifest = manifest(Kind::System, "1.0", 2, &uki);
        if let Some(root) = &mut manifest.root {
            root.data_size = 8192;
            root.size = Geometry::new(2).unwrap().total_size().unwrap();
        }
        let image = Image::signed(manifest, uki, Signers::default());
        let wanted = image.manifest.root.clone().unwrap();
        let mut slot = image.device(Target::A, 512);
        let mut taken = |floor| {
            let (digest, hash) = (&image.digest, &wanted.hash);
            root(&mut slot, Target::A, digest, floor, hash, wanted.size).map(|root| root.hash)
        };
        assert!(taken(Level::new(2, 1)).is_ok_and(|hash| hash == wanted.hash));
        for floor in [Level::new(3, 0), Level::new(0, 2)] {
            let refused = taken(floor);
            assert!(matches!(refused, Err(SlotError::NotAdmitted(_))), "{floor}");
        }
    }
}
