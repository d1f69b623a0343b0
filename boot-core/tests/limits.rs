//! Where limits lie: what is just allowed, and what no longer is.
#![allow(clippy::unwrap_used)]

use boot_core::{
    bundle::{BundleError, FRAME_MAX, FrameTable},
    dsse::PAYLOAD_MAX,
    keyring::{CHAIN_MAX, Chain, KeyringError},
    layout::{self, Part, Sizes, TYPE_ESP},
    manifest::{CHUNK_SIZE, Kind, Manifest, ManifestError, UKI_MAX},
    test_support::{Image, Signers, manifest, trust},
    types::Digest,
};

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
        it.uki.size = UKI_MAX;
        it.uki.chunks = vec![Digest::ZERO; usize::try_from(UKI_MAX / CHUNK_SIZE).unwrap()];
    });
    assert_eq!(largest, Ok(()));
    let nothing = changed(|it| (it.uki.size, it.uki.chunks) = (0, Vec::new()));
    let empty = "UKI is empty or larger than 1 GiB";
    assert_eq!(nothing, Err(ManifestError::Field(empty)));
    let no_root = changed(|it| it.root.as_mut().unwrap().data_size = 0);
    let no_multiple = "root data size is not a multiple of 4096";
    assert_eq!(no_root, Err(ManifestError::Field(no_multiple)));
    let mut root = sound.root.unwrap();
    root.data_size = 3 * 4096;
    assert_eq!(root.data_blocks(), 3);
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
    for part in Part::ALL {
        assert_eq!(Part::from_label(part.label()), Some(part));
        assert_eq!(part.to_string(), part.label());
        assert_eq!(plan.partition(part).unwrap().part, part);
    }
    assert_eq!(Part::from_label("boot-c"), None);
    let size = |part| plan.partition(part).unwrap().size / mebibyte;
    assert_eq!(
        [size(Part::BootA), size(Part::BootR), size(Part::RootB)],
        [1, 1, 2]
    );
    assert_eq!(
        format!("{TYPE_ESP:?}"),
        "Guid(c12a7328-f81f-11d2-ba4b-00a0c93ec93b)"
    );
}
