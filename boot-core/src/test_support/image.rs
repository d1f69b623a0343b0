//! Signed images of a few kilobytes.

use alloc::{string::String, vec, vec::Vec};
use core::convert::Infallible;

use ed25519_dalek::{Signer as _, SigningKey};

use p256::ecdsa;

use super::MemoryDevice;
use crate::{
    device::Device,
    dsse::Envelope,
    keyring::{KeySet, Keyring},
    layout,
    manifest::{self, Build, CHUNK_SIZE, Contents, Kind, Manifest, Root, Uki},
    public_key::{KeyFormat, P256Point, PublicKey},
    record::SlotContents,
    slot::Target,
    slot_header::{SlotHeader, clear_header, write_header, write_parts},
    trust::Trust,
    types::{Architecture, Digest, KeyringSerial, RootHash, Salt, SecurityVersion},
    verity::Geometry,
};

/// A private key that everybody knows: 32 times the same byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestKey(pub u8);

impl TestKey {
    fn signing_key(self) -> SigningKey {
        SigningKey::from_bytes(&[self.0; 32])
    }

    /// Its public half.
    pub fn public(self) -> PublicKey {
        PublicKey::Ed25519(self.signing_key().verifying_key().to_bytes())
    }

    /// Signs `envelope`.
    pub fn sign(self, envelope: &mut Envelope) {
        let sign = |bytes: &[u8]| Ok::<_, Infallible>(self.signing_key().sign(bytes).to_bytes());
        envelope.sign(&self.public(), sign).unwrap();
    }
}

/// The same of ECDSA over P-256: 32 times the same byte, from 1 to 254. Its signatures are those of RFC 6979.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestP256Key(pub u8);

impl TestP256Key {
    fn signing_key(self) -> ecdsa::SigningKey {
        ecdsa::SigningKey::from_slice(&[self.0; 32]).unwrap()
    }

    /// Its public half.
    pub fn public(self) -> PublicKey {
        let key = self.signing_key();
        let point = key.verifying_key().to_sec1_point(true);
        let bytes = point.as_bytes().try_into().unwrap();
        PublicKey::EcdsaP256(P256Point::new(bytes).unwrap())
    }

    /// Its signature of `message`.
    pub fn signature(self, message: &[u8]) -> [u8; 64] {
        let signature: ecdsa::Signature = self.signing_key().sign(message);
        signature.to_bytes().into()
    }

    /// Signs `envelope`.
    pub fn sign(self, envelope: &mut Envelope) {
        let sign = |bytes: &[u8]| Ok::<_, Infallible>(self.signature(bytes));
        envelope.sign(&self.public(), sign).unwrap();
    }
}

/// Root key 1 and signing key 2, one of one each.
pub const ROOT: TestKey = TestKey(1);

/// See [`ROOT`].
pub const SIGNING: TestKey = TestKey(2);

/// Root key of [`trust_v2`].
pub const P256_ROOT: TestP256Key = TestP256Key(1);

/// See [`keyring_chain_v2`].
pub const P256_SIGNING: TestP256Key = TestP256Key(2);

/// Who signs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signers {
    /// Signs the keyring.
    pub root: TestKey,
    /// Signs the manifest.
    pub signing: TestKey,
    /// Serial of the keyring.
    pub serial: u64,
}

impl Default for Signers {
    fn default() -> Self {
        Self {
            root: ROOT,
            signing: SIGNING,
            serial: 1,
        }
    }
}

/// Trust in [`ROOT`], product "test", x86_64.
pub fn trust() -> Trust {
    Trust {
        format: 1,
        product: "test".into(),
        architecture: Architecture::X86_64,
        layout: layout::AB_1.into(),
        root: KeySet::new(KeyFormat::V1, 1, vec![ROOT.public()]).unwrap(),
        former_root: None,
    }
}

/// A chain of one link: `root` says that `signing` signs manifests of product "test".
pub fn keyring_chain(signers: Signers) -> Vec<u8> {
    let keyring = Keyring {
        format: 1,
        serial: KeyringSerial(signers.serial),
        product: "test".into(),
        root: KeySet::new(KeyFormat::V1, 1, vec![signers.root.public()]).unwrap(),
        signing: KeySet::new(KeyFormat::V1, 1, vec![signers.signing.public()]).unwrap(),
        profile: None,
    };
    let mut envelope = keyring.to_envelope();
    signers.root.sign(&mut envelope);
    Envelope::array_to_json(&[envelope])
}

/// The same trust in format 2: in a P-256 root key, [`P256_ROOT`].
pub fn trust_v2() -> Trust {
    Trust {
        format: 2,
        root: KeySet::new(KeyFormat::V2, 1, vec![P256_ROOT.public()]).unwrap(),
        ..trust()
    }
}

/// A chain of format 2, of one link: both [`SIGNING`] and [`P256_SIGNING`] sign manifests of product "test".
pub fn keyring_chain_v2() -> Vec<u8> {
    let signing = vec![SIGNING.public(), P256_SIGNING.public()];
    let keyring = Keyring {
        format: 2,
        serial: KeyringSerial(1),
        product: "test".into(),
        root: trust_v2().root,
        signing: KeySet::new(KeyFormat::V2, 2, signing).unwrap(),
        profile: Some(KeySet::new(KeyFormat::V2, 1, vec![P256_SIGNING.public()]).unwrap()),
    };
    let mut envelope = keyring.to_envelope();
    P256_ROOT.sign(&mut envelope);
    Envelope::array_to_json(&[envelope])
}

/// A manifest for `uki`, where the kind has one, with a root of one block, where it has one.
pub fn manifest(kind: Kind, version: &str, security_version: u64, uki: &[u8]) -> Manifest {
    let size = Geometry::new(1)
        .and_then(|geometry| geometry.total_size())
        .unwrap();
    Manifest {
        format: 1,
        product: "test".into(),
        kind,
        layout: layout::AB_1.into(),
        version: version.parse().unwrap(),
        security_version: SecurityVersion(security_version),
        state_epoch: 1,
        architecture: Architecture::X86_64,
        uki: kind.has_uki().then(|| Uki {
            size: uki.len() as u64,
            digest: Digest::of(uki),
            chunk_size: CHUNK_SIZE,
            chunks: uki.chunks(CHUNK_SIZE as usize).map(Digest::of).collect(),
        }),
        root: kind.has_root().then_some(Root {
            hash: RootHash([7; 32]),
            salt: Salt([8; 32]),
            data_size: 4096,
            size,
            chunk_size: CHUNK_SIZE,
        }),
        events: Vec::new(),
        contents: Contents {
            kernel: "6.12".into(),
            kubernetes: None,
            vm: "none".into(),
            watchdogs: Vec::new(),
        },
        build: Build {
            time: 1_700_000_000,
            tool: "test".into(),
            recipe: "test".into(),
        },
        expires: None,
    }
}

/// An image, ready to be written into a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its manifest.
    pub manifest: Manifest,
    /// Digest of the manifest's exact bytes.
    pub digest: Digest,
    /// The signed manifest.
    pub envelope: Vec<u8>,
    /// The keyring chain.
    pub keyring: Vec<u8>,
    /// Serial of its keyring.
    pub serial: KeyringSerial,
    /// The UKI.
    pub uki: Vec<u8>,
}

impl Image {
    /// Where [`write_to`](Self::write_to) puts the UKI: near, so that slots are small.
    pub const UKI_OFFSET: u64 = 32 << 10;

    /// Size of a partition that holds one.
    pub const PARTITION_SIZE: u64 = 64 << 10;

    /// An image signed by the usual keys.
    pub fn new(kind: Kind, version: &str, security_version: u64) -> Self {
        let uki: Vec<u8> = version.bytes().cycle().take(5000).collect();
        Self::signed(
            manifest(kind, version, security_version, &uki),
            uki,
            Signers::default(),
        )
    }

    /// An image with this manifest, signed by these.
    pub fn signed(manifest: Manifest, uki: Vec<u8>, signers: Signers) -> Self {
        let payload = manifest.to_payload();
        let digest = Digest::of(&payload);
        let mut envelope = Envelope::new(manifest::PAYLOAD_TYPE, payload);
        signers.signing.sign(&mut envelope);
        let keyring = keyring_chain(signers);
        Self {
            manifest,
            digest,
            envelope: envelope.to_json(),
            keyring,
            serial: KeyringSerial(signers.serial),
            uki,
        }
    }

    /// The same image, signed by the keys of [`keyring_chain_v2`].
    #[must_use]
    pub fn with_keys_v2(mut self) -> Self {
        let mut envelope = Envelope::new(manifest::PAYLOAD_TYPE, self.manifest.to_payload());
        SIGNING.sign(&mut envelope);
        P256_SIGNING.sign(&mut envelope);
        self.envelope = envelope.to_json();
        (self.keyring, self.serial) = (keyring_chain_v2(), KeyringSerial(1));
        self
    }

    /// What the record says of it.
    pub fn contents(&self) -> SlotContents {
        self.manifest.slot_contents(self.digest, self.serial)
    }

    /// The header of a slot that holds it.
    pub fn header(&self, target: Target) -> SlotHeader {
        let uki_length = self.uki.len() as u64;
        let (envelope, keyring) = (self.envelope.len(), self.keyring.len());
        let header = SlotHeader::new(target, envelope, keyring, uki_length, self.digest);
        SlotHeader {
            uki_offset: Self::UKI_OFFSET,
            ..header.unwrap()
        }
    }

    /// Writes it into a slot, header last.
    pub fn write_to<D: Device>(&self, device: &mut D, target: Target) -> Result<(), D::Error> {
        let header = self.header(target);
        clear_header(device)?;
        write_parts(device, &header, &self.envelope, &self.keyring)?;
        let mut uki = self.uki.clone();
        uki.resize(uki.len().next_multiple_of(4096), 0);
        device.write_at(header.uki_offset, &uki)?;
        write_header(device, &header)
    }

    /// A partition that holds it.
    pub fn device(&self, target: Target, block_size: u32) -> MemoryDevice {
        let mut device = MemoryDevice::new(Self::PARTITION_SIZE, block_size);
        self.write_to(&mut device, target).unwrap();
        device
    }

    /// Its version.
    pub fn version(&self) -> String {
        self.manifest.version.as_str().into()
    }
}
