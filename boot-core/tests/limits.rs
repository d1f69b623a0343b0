//! Where limits lie: what is just allowed, and what no longer is.
#![allow(clippy::unwrap_used)]

use boot_core::{
    Device as _, Target,
    bundle::{BundleError, FRAME_MAX, FrameTable},
    dsse::{ENVELOPE_MAX, PAYLOAD_MAX},
    hashed,
    keyring::{CHAIN_MAX, Chain, KeyringError},
    layout::{self, Label, Sizes, TYPE_ESP},
    manifest::{
        CHUNK_SIZE, EVENTS_MAX, Kind, Manifest, ManifestError, MeasuredEvent, PCR_MAX, UKI_MAX,
    },
    record::Record,
    slot_header::{HeaderError, clear_header, read_header},
    test_support::{Image, MemoryDevice, Signers, manifest, trust},
    trust::{SECTION_SIZE, TrustError},
    types::{Digest, RootHash, Salt, Version},
    verity::{self, Geometry, TreeBuilder},
    window::{Window, WindowError},
};
use serde_json::json;

fn padded(mut json: Vec<u8>, length: usize) -> Vec<u8> {
    json.resize(length, b' ');
    json
}

#[test]
fn of_a_bundles_frames() {
    assert_eq!(FRAME_MAX, (4 << 20) + (64 << 10));
    let table = FrameTable::new(vec![FRAME_MAX, 0]).unwrap();
    assert_eq!(table.lengths(), [FRAME_MAX, 0]);
    let longer = FrameTable::new(vec![FRAME_MAX + 1]);
    assert_eq!(longer, Err(BundleError::Length("frame")));
}

#[test]
fn of_a_keyring_chain() {
    let image = Image::signed(
        manifest(Kind::System, "1", 1, &[1]),
        vec![1],
        Signers::default(),
    );
    let chain = image.keyring;
    let verify = |json: &[u8]| Chain::verify(json, &trust().root, "test").map(|it| it.links);
    assert_eq!(verify(&padded(chain.clone(), CHAIN_MAX)), Ok(1));
    let too_large = Err(KeyringError::TooLarge(CHAIN_MAX + 1));
    assert_eq!(verify(&padded(chain, CHAIN_MAX + 1)), too_large);
}

#[test]
fn of_a_manifest() {
    let sound = manifest(Kind::System, "1", 1, &[1; 5000]);
    let longest = padded(sound.to_payload(), PAYLOAD_MAX);
    assert_eq!(Manifest::parse(&longest).as_ref(), Ok(&sound));
    let changed = |change: fn(&mut Manifest)| {
        let mut manifest = sound.clone();
        change(&mut manifest);
        manifest.check()
    };
    let largest = changed(|it| {
        let uki = it.uki.as_mut().unwrap();
        uki.size = UKI_MAX;
        uki.chunks = vec![Digest::ZERO; usize::try_from(UKI_MAX / CHUNK_SIZE).unwrap()];
    });
    assert_eq!(largest, Ok(()));
    let nothing = changed(|it| {
        let uki = it.uki.as_mut().unwrap();
        (uki.size, uki.chunks) = (0, Vec::new());
    });
    let empty = "UKI is empty or larger than 1 GiB";
    assert_eq!(nothing, Err(ManifestError::Field(empty)));
    let no_root = changed(|it| it.root.as_mut().unwrap().data_size = 0);
    let no_multiple = "root data size is not a multiple of 4096";
    assert_eq!(no_root, Err(ManifestError::Field(no_multiple)));
    let event = |pcr, what: &str| MeasuredEvent {
        pcr,
        digest: Digest::ZERO,
        what: what.into(),
    };
    let with = |events| {
        let mut manifest = sound.clone();
        manifest.events = events;
        // What starts is not decided by them: others than these are read as none.
        let read = Manifest::parse(&manifest.to_payload()).unwrap();
        let is_right = manifest.check().is_ok();
        assert_eq!(read.events == manifest.events, is_right);
        assert!(is_right || read.events.is_empty());
        is_right
    };
    assert!(with(vec![event(0, "a"), event(PCR_MAX, &"x".repeat(64))]));
    assert!(with(vec![event(4, "UKI"); EVENTS_MAX]));
    assert!(!with(vec![event(4, "UKI"); EVENTS_MAX + 1]));
    for (pcr, what) in [
        (24, "UKI"),
        (255, "UKI"),
        (4, ""),
        (4, "a b"),
        (4, &"x".repeat(65)),
    ] {
        assert!(
            !with(vec![event(4, "UKI"), event(pcr, what)]),
            "{pcr} {what}"
        );
    }
    let mut later = serde_json::to_value(&sound).unwrap();
    for events in [
        json!("of another shape"),
        json!([{"pcr": 4, "digests": {}}]),
        json!(null),
    ] {
        later["events"] = events;
        assert_eq!(
            Manifest::parse(later.to_string().as_bytes()),
            Ok(sound.clone())
        );
    }
    let mut root = sound.root.unwrap();
    root.data_size = 3 * 4096;
    assert_eq!(root.data_blocks(), 3);
}

#[test]
fn of_a_slots_parts() {
    let image = Image::new(Kind::System, "1", 1);
    let mut header = image.header(Target::A);
    header.uki_offset = 1 << 30;
    let mut with_envelope = |length: usize| {
        header.envelope_length = u32::try_from(length).unwrap();
        header.check(2 << 30)
    };
    assert_eq!(with_envelope(ENVELOPE_MAX), Ok(()));
    let too_long = with_envelope(ENVELOPE_MAX + 1);
    assert_eq!(too_long, Err(HeaderError::Place("manifest")));

    let mut device = image.device(Target::A, 512);
    clear_header(&mut device).unwrap();
    assert!(read_header(&mut device).is_err());
}

#[test]
fn of_the_root_of_trust() {
    let mut trust = trust();
    let others = trust.to_json().len() - trust.product.len();
    let mut with_product = |length: usize| {
        trust.product = "x".repeat(length - others);
        trust.to_section().map(|section| section.len())
    };
    assert_eq!(with_product(SECTION_SIZE - 12), Ok(SECTION_SIZE));
    let too_large = with_product(SECTION_SIZE - 11);
    assert_eq!(too_large, Err(TrustError::TooLarge(SECTION_SIZE - 11)));
}

#[test]
fn of_a_verity_tree() {
    let geometry = Geometry::new(129).unwrap();
    assert_eq!((geometry.data_blocks(), geometry.tree_blocks()), (129, 3));
    assert_eq!(geometry.total_size(), Some(132 * 4096));
    assert_eq!(geometry.leaves_offset(), Some(130 * 4096));
    assert_eq!(geometry.leaves_len(), 129 * 32);
    assert_eq!(Geometry::new(1).unwrap().leaves_offset(), None);
    assert_eq!(verity::blocks_len(3), 3 * 4096);
    let leaf = [7; 32];
    let root = TreeBuilder::root_of(&Salt([1; 32]), &leaf);
    assert_eq!(root, Some(RootHash(leaf)), "of one block its leaf");
    assert_eq!(TreeBuilder::root_of(&Salt([1; 32]), &[]), None);
}

#[test]
fn of_a_version() {
    let longest = "1".repeat(Version::MAX);
    let version: Version = longest.parse().unwrap();
    assert_eq!((version.as_str(), version.is_empty()), (&*longest, false));
    assert!(format!("{longest}1").parse::<Version>().is_err());
    assert!(Record::empty().a.version.is_empty());
    let version: Version = "1.0".parse().unwrap();
    assert_eq!(format!("{version:?}"), r#"Version("1.0")"#);
}

#[test]
fn of_a_disks_partitions() {
    let mebibyte = 1 << 20;
    let sizes = Sizes {
        boot: 1,
        recovery: mebibyte,
        root: mebibyte + 1,
        state: mebibyte,
    };
    let plan = layout::plan(&sizes, 512).unwrap();
    for label in Label::ALL {
        assert_eq!(Label::from_label(label.label()), Some(label));
        assert_eq!(label.to_string(), label.label());
        assert_eq!(plan.partition(label).unwrap().label, label);
    }
    assert_eq!(Label::from_label("boot-c"), None);
    let size = |label| plan.partition(label).unwrap().size / mebibyte;
    assert_eq!(
        [size(Label::BootA), size(Label::BootR), size(Label::RootB)],
        [1, 1, 2]
    );
    assert_eq!(
        format!("{TYPE_ESP:?}"),
        "Guid(c12a7328-f81f-11d2-ba4b-00a0c93ec93b)"
    );
}

#[test]
fn of_a_window_over_a_disk() {
    let mut disk = MemoryDevice::new(4096, 512);
    let mut window = Window::new(&mut disk, 1024, 1024);
    window.write_at(512, &[7; 512]).unwrap();
    let mut block = [0; 512];
    window.read_at(512, &mut block).unwrap();
    assert_eq!(block, [7; 512]);
    for offset in [1024, 2048, u64::MAX - 511, u64::MAX] {
        let read = window.read_at(offset, &mut block);
        assert_eq!(read.unwrap_err(), WindowError::BeyondEnd, "{offset}");
        assert!(window.write_at(offset, &block).is_err());
    }
    assert!(window.write_at(512, &[1; 1024]).is_err());
    disk.read_at(1536, &mut block).unwrap();
    assert_eq!(block, [7; 512]);
    let mut wraps = Window::new(&mut disk, u64::MAX - 511, 4096);
    assert!(wraps.read_at(512, &mut block).is_err());
}

#[test]
fn of_what_is_hashed_as_it_is_read() {
    const STEP: usize = 4 << 20;
    let mut device = MemoryDevice::new(3 * STEP as u64, 512);
    let bytes: Vec<u8> = (0..3 * STEP).map(|at| (at / 7) as u8).collect();
    device.write_at(0, &bytes).unwrap();
    for length in [0, 1, 512, STEP, STEP + 700, 2 * STEP - 512] {
        let wanted = &bytes[512..][..length];
        let found = hashed::digest(&mut device, 512, length as u64).unwrap();
        assert_eq!(found, Digest::of(wanted), "{length} bytes");
        let mut kept = vec![0; length.next_multiple_of(512)];
        let found = hashed::read(&mut device, 512, &mut kept, length).unwrap();
        assert_eq!(found, Digest::of(wanted), "{length} bytes");
        assert_eq!(kept[..length], *wanted);
    }
    let beyond = hashed::digest(&mut device, 512, 3 * STEP as u64);
    assert!(beyond.is_err());
}
