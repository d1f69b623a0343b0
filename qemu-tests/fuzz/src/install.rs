//! A machine of a few kilobytes on which `bootctl install` installs a bundle that somebody has changed.
//!
//! Slot A runs version 1.0 and is good, slot B is empty. What must hold whatever the bundle is:
//! - what is staged is what was signed: UKI, root and verity tree, to the byte;
//! - what is refused leaves nothing staged, and no byte in slot B that is not the signed image's;
//! - slot A is not written, and memory is bounded.

use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use boot_core::bundle::{FrameTable, HEADER_SIZE, Header};
use boot_core::dsse::Envelope;
use boot_core::hashed;
use boot_core::manifest::{self, CHUNK_SIZE, Kind, Manifest, Root};
use boot_core::record::SlotStatus;
use boot_core::slot_header::{self, SlotHeader, UKI_OFFSET};
use boot_core::store::{BootState, PARTITION_SIZE};
use boot_core::test_support::{Image, SIGNING, Signers, manifest as sample, trust};
use boot_core::types::Salt;
use boot_core::verify::would_start;
use boot_core::verity::{BlockHasher, Geometry, TreeBuilder};
use boot_core::{Device as _, Digest, Nonce, SecurityVersion, Slot, Target, transition};
use bootctl::boot::admission::Admission;
use bootctl::boot::control::{Context, Control};
use bootctl::boot::slot_check::SlotDevices;
use bootctl::install::{Options, install};
use bootctl::progress::Progress;
use bootctl::source::Source;

use crate::disk::Sparse;
use crate::{Flip, memory, seal};

const BOOT_SIZE: u64 = UKI_OFFSET + (64 << 10);
const ROOT_SIZE: u64 = 64 << 10;
/// Three buffers of a chunk, the longest frame, and some.
const MEMORY: usize = 24 << 20;

/// An image with its root, and the frames of its bundle.
struct Sample {
    image: Image,
    /// Data and tree.
    root: Vec<u8>,
    leaves: Vec<u8>,
    frames: [Vec<u8>; 2],
}

static RUNNING: LazyLock<Sample> = LazyLock::new(|| Sample::new("1.0"));
static WANTED: LazyLock<Sample> = LazyLock::new(|| Sample::new("1.1"));
static ADMISSION: LazyLock<Admission> = LazyLock::new(|| trust().into());

const SALT: Salt = Salt([3; 32]);

impl Sample {
    /// Two blocks of UKI, three of root; the first block of the root is the same in every version.
    fn new(version: &str) -> Self {
        let uki: Vec<u8> = version.bytes().cycle().take(5000).collect();
        let mut data = vec![7; 4096];
        data.extend(version.bytes().rev().cycle().take(8192));
        let mut leaves = Vec::new();
        BlockHasher::new(&SALT).append_leaves(&data, &mut leaves);
        let mut builder = TreeBuilder::new(&SALT);
        builder.push(&leaves);
        let tree = builder.finish().expect("three leaves make a tree");
        let frames =
            [&uki, &data].map(|bytes| zstd::bulk::compress(bytes, 1).expect("a few bytes"));
        let mut root = data.clone();
        root.extend(tree.to_bytes(&leaves));
        let mut manifest = sample(Kind::System, version, 1, &uki);
        manifest.root = Some(Root {
            hash: tree.root,
            salt: SALT,
            data_size: data.len() as u64,
            size: root.len() as u64,
            chunk_size: CHUNK_SIZE,
        });
        Self {
            image: Image::signed(manifest, uki, Signers::default()),
            root,
            leaves,
            frames,
        }
    }

    fn header(&self, target: Target) -> SlotHeader {
        let (envelope, keyring) = (self.image.envelope.len(), self.image.keyring.len());
        let uki = self.image.uki.len() as u64;
        SlotHeader::new(target, envelope, keyring, uki, self.image.digest).expect("it is small")
    }

    /// A slot that holds it.
    fn slot(&self, target: Target) -> SlotDevices<Sparse> {
        let mut parts = empty();
        let header = self.header(target);
        parts.boot.put(0, &header.encode());
        parts
            .boot
            .put(header.envelope_offset.into(), &self.image.envelope);
        parts
            .boot
            .put(header.keyring_offset.into(), &self.image.keyring);
        parts.boot.put(UKI_OFFSET, &self.image.uki);
        parts.root.put(0, &self.root);
        parts
    }
}

fn empty() -> SlotDevices<Sparse> {
    SlotDevices {
        boot: Sparse::new(BOOT_SIZE, 512),
        root: Sparse::new(ROOT_SIZE, 512),
    }
}

/// What somebody did to a bundle, and to the machine that it goes to.
#[derive(Arbitrary, Debug)]
pub struct Changes<'a> {
    /// To the manifest, before it was signed.
    manifest: Option<Signed>,
    /// To the parts, before they were put together.
    parts: Vec<Change<'a>>,
    /// To all of it.
    flips: Vec<Flip>,
    cut: Option<u16>,
    more: &'a [u8],
    /// To the slot that runs, of which blocks are taken.
    beside: Vec<(bool, Flip)>,
    recovery_runs: bool,
}

/// A manifest that contradicts itself or asks for much, and is signed all the same.
#[derive(Arbitrary, Debug)]
enum Signed {
    UkiSize(u64),
    UkiDigest,
    ChunkDigest,
    Chunks(u8),
    DataBlocks(u64),
    RootSize(u64),
    RootHash,
    Salt,
    SecurityVersion(u8),
    Expires(u64),
    NoUki,
    NoRoot,
    Kind(u8),
}

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    /// A number in the header, which is sealed again.
    Header(u8, u64),
    Flag(u16),
    Envelope(Flip),
    Keyring(Flip),
    Leaves(Flip),
    Table(bool, u32),
    /// Another frame, with its length in the table.
    Frame(bool, Frame<'a>),
    /// Frames in the other order.
    Swap,
    NoLeaves,
}

#[derive(Arbitrary, Debug)]
enum Frame<'a> {
    Bytes(&'a [u8]),
    /// Whole and valid, of other bytes.
    Of(&'a [u8]),
    /// That would become many zeros.
    Zeros(u32),
    Flipped(Flip),
    Nothing,
}

impl Signed {
    fn apply(&self, manifest: &mut Manifest) {
        let root = &mut manifest.root;
        let uki = manifest.uki.as_mut().expect("a system has one");
        match *self {
            Self::UkiSize(size) => uki.size = size,
            Self::UkiDigest => uki.digest = Digest([1; 32]),
            Self::ChunkDigest => uki.chunks[0] = Digest([1; 32]),
            Self::Chunks(count) => {
                uki.chunks = vec![uki.digest; count.into()];
                uki.size = u64::from(count) * CHUNK_SIZE;
            }
            Self::DataBlocks(blocks) => {
                if let (Some(root), Some(size)) = (root, Geometry::new(blocks)) {
                    root.data_size = blocks * 4096;
                    root.size = size.total_size().unwrap_or(u64::MAX);
                }
            }
            Self::RootSize(size) => {
                root.iter_mut().for_each(|root| root.size = size);
            }
            Self::RootHash => root.iter_mut().for_each(|root| root.hash.0[0] ^= 1),
            Self::Salt => root.iter_mut().for_each(|root| root.salt.0[0] ^= 1),
            Self::SecurityVersion(version) => {
                manifest.security_version = SecurityVersion(version.into());
            }
            Self::Expires(when) => manifest.expires = Some(when),
            Self::NoUki => manifest.uki = None,
            Self::NoRoot => *root = None,
            Self::Kind(kind) => {
                manifest.kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
            }
        }
    }
}

impl Changes<'_> {
    /// Those that a hostile bundle cannot make: everything else may be taken from `data` at will.
    fn signed(&self) -> (Manifest, Vec<u8>) {
        let mut manifest = WANTED.image.manifest.clone();
        let Some(change) = &self.manifest else {
            return (manifest, WANTED.image.envelope.clone());
        };
        change.apply(&mut manifest);
        let mut envelope = Envelope::new(manifest::PAYLOAD_TYPE, manifest.to_payload());
        SIGNING.sign(&mut envelope);
        (manifest, envelope.to_json())
    }

    /// The bundle, and the manifest that was signed.
    pub fn bundle(&self) -> (Vec<u8>, Manifest) {
        let (manifest, mut envelope) = self.signed();
        let mut keyring = WANTED.image.keyring.clone();
        let mut leaves = WANTED.leaves.clone();
        let mut frames = WANTED.frames.clone();
        let mut table: Vec<u32> = frames.iter().map(|frame| frame.len() as u32).collect();
        let mut header = Header {
            flags: 0,
            envelope_length: envelope.len() as u32,
            keyring_length: keyring.len() as u32,
            uki_frames: 1,
            root_frames: 1,
            leaves_length: leaves.len() as u64,
        };
        for change in &self.parts {
            match change {
                Change::Header(field, value) => {
                    let number = *value as u32;
                    match field % 5 {
                        0 => header.envelope_length = number,
                        1 => header.keyring_length = number,
                        2 => header.uki_frames = number,
                        3 => header.root_frames = number,
                        _ => header.leaves_length = *value,
                    }
                }
                Change::Flag(flags) => header.flags = *flags,
                Change::Envelope(flip) => flip.apply(&mut envelope),
                Change::Keyring(flip) => flip.apply(&mut keyring),
                Change::Leaves(flip) => flip.apply(&mut leaves),
                Change::Table(which, length) => table[usize::from(*which)] = *length,
                Change::Frame(which, with) => {
                    let frame = &mut frames[usize::from(*which)];
                    with.apply(frame);
                    table[usize::from(*which)] = frame.len() as u32;
                }
                Change::Swap => {
                    frames.swap(0, 1);
                    table.swap(0, 1);
                }
                Change::NoLeaves => leaves.clear(),
            }
        }
        let mut bytes = header.encode().to_vec();
        seal(&mut bytes[..HEADER_SIZE], 12);
        bytes.extend(envelope);
        bytes.extend(keyring);
        bytes.extend(table.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(leaves);
        bytes.extend(frames.iter().flatten());
        self.flips.iter().for_each(|flip| flip.apply(&mut bytes));
        if let Some(cut) = self.cut {
            bytes.truncate(cut.into());
        }
        bytes.extend(self.more);
        (bytes, manifest)
    }
}

impl Frame<'_> {
    fn apply(&self, frame: &mut Vec<u8>) {
        let compress = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("it has room");
        match self {
            Self::Bytes(bytes) => *frame = bytes.to_vec(),
            Self::Of(bytes) => *frame = compress(bytes),
            Self::Zeros(many) => *frame = compress(&vec![0; (*many % (5 << 20)) as usize]),
            Self::Flipped(flip) => flip.apply(frame),
            Self::Nothing => frame.clear(),
        }
    }
}

/// Installs what `open` makes of the changed bundle, and looks at what became of the machine.
pub fn check(changes: &Changes<'_>, open: impl FnOnce(Vec<u8>) -> Option<Box<dyn Source>>) {
    let (bundle, manifest) = changes.bundle();
    let Some(mut source) = open(bundle) else {
        return;
    };
    let booted = if changes.recovery_runs {
        Target::Recovery
    } else {
        Target::A
    };
    let mut state = Sparse::new(PARTITION_SIZE, 512);
    let record = transition::first_image(RUNNING.image.contents());
    let record = transition::mark_good(&record, Slot::A, &RUNNING.image.digest, Target::A);
    BootState::new(&mut state)
        .commit(&record.expect("it runs"))
        .expect("the disk is well");
    let context = Context {
        booted,
        nonce: Nonce([1; 16]),
        now: || 1_790_000_000,
    };
    let mut control = Control::new(state, context);
    let mut beside = RUNNING.slot(Target::A);
    for (root, flip) in &changes.beside {
        damage(&mut beside, *root, *flip);
    }
    let before = (beside.boot.clone(), beside.root.clone());
    let mut target = empty();
    let options = Options {
        admission: &ADMISSION,
        slot: Slot::B,
        force: false,
        scratch: PathBuf::from("/nowhere"),
        unwanted: &[],
    };
    let installed = memory::within(MEMORY, || {
        let (control, target) = (&mut control, &mut target);
        let other = Some(&mut beside);
        install(
            control,
            target,
            other,
            &mut *source,
            &options,
            &Progress::silent(),
        )
    });
    assert!(
        (beside.boot, beside.root) == before,
        "the other slot was written"
    );
    let record = control.record().expect("a commit never loses both copies");
    match installed {
        Ok(installed) => {
            assert_eq!(record.b.status(), SlotStatus::Staged);
            assert_eq!(record.b.digest, installed.manifest);
            assert_eq!(installed.manifest, Digest::of(&manifest.to_payload()));
            is_whole(&mut target, &manifest);
            would_start(&mut target.boot, Target::B, &*ADMISSION, &record)
                .expect("what was staged does not verify");
        }
        Err(failure) => {
            assert!(!failure.what.is_empty());
            assert_eq!(record.b.status(), SlotStatus::Empty, "{failure:?}");
            if changes.manifest.is_none() {
                has_nothing_else(&mut target);
            }
        }
    }
}

/// Changes a byte where there is something.
fn damage(parts: &mut SlotDevices<Sparse>, root: bool, flip: Flip) {
    let (device, size) = if root {
        (&mut parts.root, RUNNING.root.len())
    } else {
        (&mut parts.boot, 16 << 10)
    };
    let mut bytes = vec![0; size];
    device.read_at(0, &mut bytes).expect("it is there");
    flip.apply(&mut bytes);
    if !root {
        // A header that does not check hides everything behind it.
        seal(&mut bytes[..512], 12);
    }
    device.put(0, &bytes);
}

/// UKI and root are those of the manifest.
fn is_whole(target: &mut SlotDevices<Sparse>, manifest: &Manifest) {
    let header = slot_header::read_header(&mut target.boot).expect("it was written");
    let uki = hashed::digest(&mut target.boot, header.uki_offset, header.uki_length);
    let expected = manifest.uki().expect("a system has one").digest;
    assert_eq!(uki, Ok(expected));
    let root = manifest.root.as_ref().expect("a system has one");
    let mut data = vec![0; root.data_size as usize];
    target.root.read_at(0, &mut data).expect("it fits");
    let mut leaves = Vec::new();
    BlockHasher::new(&root.salt).append_leaves(&data, &mut leaves);
    let mut builder = TreeBuilder::new(&root.salt);
    builder.push(&leaves);
    let tree = builder.finish().expect("it has blocks");
    assert_eq!(tree.root, root.hash);
    let mut found = vec![0; (root.size - root.data_size) as usize];
    target
        .root
        .read_at(root.data_size, &mut found)
        .expect("it fits");
    assert!(found == tree.to_bytes(&leaves), "the tree is another one");
}

/// Whatever is in slot B is the signed image's.
fn has_nothing_else(target: &mut SlotDevices<Sparse>) {
    let places = [
        (&mut target.boot, UKI_OFFSET, &WANTED.image.uki),
        (&mut target.root, 0, &WANTED.root),
    ];
    for (device, from, wanted) in places {
        let mut bytes = vec![0; wanted.len().next_multiple_of(4096)];
        device.read_at(from, &mut bytes).expect("it is there");
        let mut wanted = wanted.clone();
        wanted.resize(bytes.len(), 0);
        for (found, wanted) in bytes.chunks(4096).zip(wanted.chunks(4096)) {
            let zero = found.iter().all(|byte| *byte == 0);
            assert!(zero || found == wanted, "a byte that nobody signed");
        }
    }
}

/// Frame tables that agree with themselves.
pub fn table(bytes: &[u8]) {
    if let Ok(table) = FrameTable::decode(bytes) {
        assert_eq!(table.encode(), bytes);
        let mut end = 0;
        for index in 0..table.lengths().len() as u32 {
            let (start, length) = table.frame(index).expect("it is one of them");
            assert_eq!(start, end);
            end += u64::from(length);
        }
        assert_eq!(table.total(), end);
        assert_eq!(table.frame(table.lengths().len() as u32), None);
    }
}
