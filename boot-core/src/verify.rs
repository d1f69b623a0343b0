//! The one verifier: whether what a slot holds may start here (rule 5).
//!
//! Signatures first, so that nothing else of the manifest is looked at unless those who must have
//! signed it. The loader hashes the UKI as it reads it, because what it starts are the very bytes that it hashed
//! ([`check_manifest`], then [`Verified::check_uki`]); who only wants to know asks [`would_start`].

use alloc::string::{String, ToString};

use crate::{
    device::Device,
    dsse::{DsseError, Envelope},
    floor::{Level, NotAdmitted},
    hashed,
    keyring::{Chain, Keyring, KeyringError},
    manifest::{self, Kind, Manifest, ManifestError},
    record::{Record, SlotContents},
    slot::Target,
    slot_header::{HeaderError, ReadSlotError, SlotHeader, SlotParts, read_slot},
    trust::Trust,
    types::{Architecture, Digest},
};

/// What is expected of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// The slot that is looked at.
    pub target: Target,
    /// Nothing below this.
    pub floor: Level,
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
    /// The device refused to read; what it said, as text: each platform has an error type of its own.
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
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The manifest's envelope is none, or is not signed by enough keys.
    #[error("the manifest is not signed as it must be: {0}")]
    Signature(DsseError),
    /// The header is about another manifest.
    #[error("the slot header names another manifest ({header}) than the one beside it ({found})")]
    HeaderDigest {
        /// What the header says.
        header: Digest,
        /// What is there.
        found: Digest,
    },
    /// Signed, but not a manifest that can be understood.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// For another product.
    #[error("it is for product {found:?}, this is {expected:?}")]
    Product {
        /// What the manifest says.
        found: String,
        /// What this is.
        expected: String,
    },
    /// What has its place elsewhere: a recovery system in a slot, or the other way round.
    #[error("its kind is {found}, expected {expected}")]
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
    /// Below the floor: an older image than may be fallen back to, or one under withdrawn keys.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
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
    /// How new it is.
    pub fn level(&self) -> Level {
        Level {
            security_version: self.manifest.security_version,
            keyring_serial: self.keyring.serial,
        }
    }

    /// What a slot's entry in the record says of it.
    pub fn slot_contents(&self) -> SlotContents {
        self.manifest
            .slot_contents(self.digest, self.keyring.serial)
    }

    /// Whether the UKI that was read is the manifest's.
    pub fn check_uki(&self, found: &Digest) -> Result<(), Rejected> {
        if *found == self.manifest.uki()?.digest {
            Ok(())
        } else {
            Err(Rejected::UkiDigest { found: *found })
        }
    }

    /// Whether the record is about this image: its counters are one image's, and another has not earned them. Recovery
    /// has none.
    pub fn check_recorded(&self, target: Target, record: &Record) -> Result<(), Rejected> {
        let found = self.digest;
        match target.slot() {
            Some(slot) if record.slot(slot).digest != found => Err(Rejected::NotRecorded { found }),
            _ => Ok(()),
        }
    }
}

/// Whoever can say whether what a slot holds was signed for here: the root of trust. A simulator may remember what was
/// verified before.
pub trait Verify {
    /// Verifies what a slot holds: header, keyring chain, signatures, product, kind, architecture, layout, floor.
    /// Of the UKI, its length.
    ///
    /// # Errors
    /// [`Rejected`], with the first thing that does not check.
    fn verify(&self, parts: &SlotParts, expect: &Expect) -> Result<Verified, Rejected>;
}

impl Verify for Trust {
    fn verify(&self, parts: &SlotParts, expect: &Expect) -> Result<Verified, Rejected> {
        let header = &parts.header;
        if header.slot != expect.target {
            return Err(Rejected::OtherSlot { found: header.slot });
        }
        let verified = verify_manifest(self, &parts.envelope, &parts.keyring)?;
        if verified.digest != header.manifest_digest {
            let (header, found) = (header.manifest_digest, verified.digest);
            return Err(Rejected::HeaderDigest { header, found });
        }
        let manifest = &verified.manifest;
        let expected = Kind::of(expect.target);
        if manifest.kind != expected {
            return Err(Rejected::Kind {
                found: manifest.kind,
                expected,
            });
        }
        expect.floor.admits(verified.level())?;
        let uki = manifest.uki()?;
        if header.uki_length != uki.size {
            let (found, expected) = (header.uki_length, uki.size);
            return Err(Rejected::UkiSize { found, expected });
        }
        Ok(verified)
    }
}

/// Reads what a slot holds and verifies it, but for the UKI: whoever wants to start that hashes it as it is read.
///
/// # Errors
/// [`Rejected`], with the first thing that does not check.
pub fn check_manifest<D: Device>(
    slot: &mut D,
    verifier: &impl Verify,
    expect: &Expect,
) -> Result<(SlotHeader, Verified), Rejected> {
    let parts = read_slot(slot).map_err(|error| match error {
        ReadSlotError::Header(error) => Rejected::Header(error),
        ReadSlotError::Device(error) => Rejected::Unreadable(error.to_string()),
    })?;
    let verified = verifier.verify(&parts, expect)?;
    Ok((parts.header, verified))
}

/// Whether the loader would start what `target` holds, as far as its contents go: it verifies, is not below the record's
/// floor, is what the record is about, and its UKI is the manifest's to the byte. Counters are not looked at.
///
/// # Errors
/// [`Rejected`], with the first thing that does not check.
pub fn would_start<D: Device>(
    slot: &mut D,
    target: Target,
    verifier: &impl Verify,
    record: &Record,
) -> Result<Verified, Rejected> {
    let floor = record.floors.of(target);
    let expect = Expect { target, floor };
    let (header, verified) = check_manifest(slot, verifier, &expect)?;
    verified.check_recorded(target, record)?;
    let uki = hashed::digest(slot, header.uki_offset, header.uki_length)
        .map_err(|error| Rejected::Unreadable(error.to_string()))?;
    verified.check_uki(&uki)?;
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
    let chain = Chain::verify(keyring, trust.root_for(keyring), &trust.product)?;
    let envelope = Envelope::parse(envelope).map_err(Rejected::Signature)?;
    let payload = envelope
        .verify(manifest::PAYLOAD_TYPE, &chain.keyring.signing)
        .map_err(Rejected::Signature)?;
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
