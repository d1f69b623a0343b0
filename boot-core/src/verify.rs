//! The one verifier: whether what a slot holds may start here (rule 5).
//!
//! Signatures first, so that nothing else of the manifest is looked at unless those who must have
//! signed it. The caller reads and hashes the UKI, because only it can keep the very bytes that it
//! hashed: [`Verified::check_uki`] compares.

use alloc::string::String;

use crate::{
    dsse::{DsseError, Envelope},
    keyring::{Chain, Keyring, KeyringError},
    manifest::{self, Kind, Manifest, ManifestError},
    slot::Target,
    slot_header::{HeaderError, SlotHeader},
    trust::Trust,
    types::{Architecture, Digest, SecurityVersion},
};

/// What is expected of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The slot that is looked at.
    pub target: Target,
    /// Nothing below this security version.
    pub floor: SecurityVersion,
    /// Digest of the UKI as it is on the disk, if it has been hashed already.
    pub uki: Option<Digest>,
}

/// A manifest that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 of its exact bytes.
    pub digest: Digest,
    /// The keys that count, by the chain that came with it.
    pub keyring: Keyring,
}

/// Why a slot is not started. The text says what is wrong, without the slot's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The partition is not there.
    #[error("its partition is missing")]
    NoPartition,
    /// The device refused to read; what it said.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// No slot header to go by.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The header was written for another slot: the partitions were swapped or copied.
    #[error("its slot header is that of {found}")]
    OtherSlot {
        /// What the header says.
        found: Target,
    },
    /// The keyring chain does not lead from the root keys to here.
    #[error("{0}")]
    Keyring(#[from] KeyringError),
    /// The manifest's envelope is none, or is not signed by enough keys.
    #[error("the manifest is not signed as it must be: {0}")]
    Signature(#[from] DsseError),
    /// The header is about another manifest.
    #[error("the slot header names another manifest ({header}) than the one beside it ({found})")]
    HeaderDigest {
        /// What the header says.
        header: Digest,
        /// What is there.
        found: Digest,
    },
    /// Signed, but not a manifest that can be understood.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// For another product.
    #[error("it is for product {found:?}, this is {expected:?}")]
    Product {
        /// What the manifest says.
        found: String,
        /// What this is.
        expected: String,
    },
    /// A recovery system in a slot, or the other way round.
    #[error("it is a {found} image, expected {expected}")]
    Kind {
        /// What the manifest says.
        found: Kind,
        /// What belongs there.
        expected: Kind,
    },
    /// For the other architecture.
    #[error("it is for {found}, this machine is {expected}")]
    Architecture {
        /// What the manifest says.
        found: Architecture,
        /// What this is.
        expected: Architecture,
    },
    /// For disks of another layout.
    #[error("it is for disk layout {found:?}, this disk has {expected:?}")]
    Layout {
        /// What the manifest says.
        found: String,
        /// What this is.
        expected: String,
    },
    /// Older than what may be fallen back to.
    #[error("its security version {found} is below the floor {floor}")]
    BelowFloor {
        /// What the manifest says.
        found: SecurityVersion,
        /// The floor.
        floor: SecurityVersion,
    },
    /// The header's length of the UKI is not the manifest's.
    #[error("its UKI has {found} bytes, the manifest says {expected}")]
    UkiSize {
        /// What the header says.
        found: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// The UKI is not the one in the manifest.
    #[error("its UKI does not have the digest that the manifest names (found {found})")]
    UkiDigest {
        /// What was hashed.
        found: Digest,
    },
    /// It verifies, but the record's counters are about another image.
    #[error("it holds manifest {found}, but the boot-state record is about another one")]
    NotRecorded {
        /// What is in the slot.
        found: Digest,
    },
}

impl Verified {
    /// Whether the UKI that was read is the manifest's.
    ///
    /// # Errors
    /// [`Rejected::UkiDigest`], if it is not.
    pub fn check_uki(&self, found: &Digest) -> Result<(), Rejected> {
        if *found == self.manifest.uki.digest {
            Ok(())
        } else {
            Err(Rejected::UkiDigest { found: *found })
        }
    }
}

/// Verifies what a slot holds: header, keyring chain, signatures, product, kind, architecture, layout,
/// security version, and the UKI's digest where `expect` has it.
///
/// # Errors
/// [`Rejected`], with the first thing that does not check.
pub fn verify_slot(
    trust: &Trust,
    header: &SlotHeader,
    envelope: &[u8],
    keyring: &[u8],
    expect: &Expect,
) -> Result<Verified, Rejected> {
    if header.slot != expect.target {
        return Err(Rejected::OtherSlot { found: header.slot });
    }
    let verified = verify_manifest(trust, envelope, keyring)?;
    if verified.digest != header.manifest_digest {
        let (header, found) = (header.manifest_digest, verified.digest);
        return Err(Rejected::HeaderDigest { header, found });
    }
    let manifest = &verified.manifest;
    let expected = match expect.target {
        Target::A | Target::B => Kind::System,
        Target::Recovery => Kind::Recovery,
    };
    if manifest.kind != expected {
        return Err(Rejected::Kind {
            found: manifest.kind,
            expected,
        });
    }
    if manifest.security_version < expect.floor {
        let (found, floor) = (manifest.security_version, expect.floor);
        return Err(Rejected::BelowFloor { found, floor });
    }
    if header.uki_length != manifest.uki.size {
        let (found, expected) = (header.uki_length, manifest.uki.size);
        return Err(Rejected::UkiSize { found, expected });
    }
    if let Some(uki) = &expect.uki {
        verified.check_uki(uki)?;
    }
    Ok(verified)
}

/// Verifies a manifest that is not in a slot (of a bundle, say): keyring chain, signatures, product,
/// architecture, layout.
///
/// # Errors
/// [`Rejected`], with the first thing that does not check.
pub fn verify_manifest(
    trust: &Trust,
    envelope: &[u8],
    keyring: &[u8],
) -> Result<Verified, Rejected> {
    let chain = Chain::verify(keyring, &trust.root, &trust.product)?;
    let envelope = Envelope::parse(envelope)?;
    let payload = envelope.verify(manifest::PAYLOAD_TYPE, &chain.keyring.signing)?;
    let digest = Digest::of(payload);
    let manifest = Manifest::parse(payload)?;
    if manifest.product != trust.product {
        let (found, expected) = (manifest.product, trust.product.clone());
        return Err(Rejected::Product { found, expected });
    }
    if manifest.architecture != trust.architecture {
        let (found, expected) = (manifest.architecture, trust.architecture);
        return Err(Rejected::Architecture { found, expected });
    }
    if manifest.layout != trust.layout {
        let (found, expected) = (manifest.layout, trust.layout.clone());
        return Err(Rejected::Layout { found, expected });
    }
    Ok(Verified {
        manifest,
        digest,
        keyring: chain.keyring,
    })
}
