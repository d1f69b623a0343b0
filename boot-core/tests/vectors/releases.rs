//! What each release writes, kept as files, and read by this build: loader, slot A and slot B are builds of different
//! years, and what is on a disk cannot be changed from outside.
//!
//! `releases/VERSION/` holds the vectors as they were when VERSION was released, and `reads-as.json`, what is to be read
//! out of them for ever. Those of the version that is being made are what is in `docs/formats/vectors` today.

use std::{collections::BTreeMap, fs};

use boot_core::{
    Digest, Nonce, Slot, Target,
    bundle::Header,
    event::Event,
    hand_over::HandOver,
    keyring::{Chain, KeySet},
    manifest::Manifest,
    quarantine::QuarantineEntry,
    record::Record,
    slot_header::SlotHeader,
    test_support::trust,
    transition,
    trust::Trust,
};
use serde_json::{Value, json};

use super::{describe, from_hex, path};

/// What is on a disk, or in a file that one build gives another.
const FILES: [&str; 10] = [
    "boot-state-busy.hex",
    "boot-state-reserved.hex",
    "bundle-header.hex",
    "event.hex",
    "hand-over.json",
    "keyring.json",
    "manifest.json",
    "quarantine.hex",
    "slot-header.hex",
    "trust.json",
];

type Files = BTreeMap<&'static str, String>;

fn files(directory: &str) -> Files {
    let read = |name| {
        let path = path(directory).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    FILES.map(|name| (name, read(name))).into()
}

/// What this build reads out of them.
fn reads_as(files: &Files) -> Value {
    let record = |name| describe(&Record::decode(&from_hex(&files[name])).unwrap());
    let header = SlotHeader::decode(&from_hex(&files["slot-header.hex"])).unwrap();
    let event = Event::decode(&from_hex(&files["event.hex"])).unwrap();
    let entry = QuarantineEntry::decode(&from_hex(&files["quarantine.hex"])).unwrap();
    let bundle = Header::decode(&from_hex(&files["bundle-header.hex"])).unwrap();
    let hand_over = HandOver::from_json(files["hand-over.json"].as_bytes()).unwrap();
    let manifest = Manifest::parse(files["manifest.json"].as_bytes()).unwrap();
    let chain = Chain::verify(files["keyring.json"].as_bytes(), &trust().root, "test").unwrap();
    let trust = Trust::from_json(files["trust.json"].as_bytes()).unwrap();
    json!({
        "boot-state-busy.hex": record("boot-state-busy.hex"),
        "boot-state-reserved.hex": record("boot-state-reserved.hex"),
        "bundle-header.hex": [
            u32::from(bundle.flags), bundle.envelope_length, bundle.keyring_length, bundle.uki_frames,
            bundle.root_frames,
        ],
        "event.hex": {
            "sequence": event.sequence, "stage": event.stage.name(), "slot": event.slot,
            "time": event.time, "kind": event.kind.name(), "nonce": event.nonce,
            "digest": event.digest, "text": event.text,
        },
        "hand-over.json": {
            "slot": hand_over.slot, "why": hand_over.why, "nonce": hand_over.nonce,
            "recorded": hand_over.recorded, "disk": hand_over.disk, "manifest": hand_over.manifest,
            "record_versions": hand_over.record_versions,
        },
        "keyring.json": { "serial": chain.keyring.serial, "signing": keys(&chain.keyring.signing) },
        "manifest.json": {
            "version": manifest.version.as_str(), "security_version": manifest.security_version,
            "uki": manifest.uki().unwrap().digest, "root": manifest.root.map(|root| root.hash),
        },
        "quarantine.hex": {
            "sequence": entry.sequence, "time": entry.time, "digest": entry.digest,
            "reason": entry.reason,
        },
        "slot-header.hex": {
            "slot": header.slot, "envelope": [header.envelope_offset, header.envelope_length],
            "keyring": [header.keyring_offset, header.keyring_length],
            "uki": [header.uki_offset, header.uki_length], "manifest": header.manifest_digest,
        },
        "trust.json": { "product": trust.product, "root": keys(&trust.root) },
    })
}

/// As they are written.
fn keys(set: &KeySet) -> Value {
    serde_json::to_value(set).unwrap()["keys"].take()
}

pub(crate) fn releases() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path("releases"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_version_that_is_being_made_has_its_vectors() {
    let version = env!("CARGO_PKG_VERSION");
    let directory = format!("releases/{version}");
    let now = files("");
    if !path(&directory).exists() && std::env::var_os("STERNPOST_WRITE_VECTORS").is_some() {
        fs::create_dir_all(path(&directory)).unwrap();
        for (name, text) in &now {
            fs::write(path(&directory).join(name), text).unwrap();
        }
        let reads_as = serde_json::to_string_pretty(&reads_as(&now)).unwrap() + "\n";
        fs::write(path(&directory).join("reads-as.json"), reads_as).unwrap();
    }
    assert_eq!(
        files(&directory),
        now,
        "docs/formats/README.md says when these are written"
    );
}

#[test]
fn what_every_release_wrote_is_read_as_it_was_meant() {
    for release in releases() {
        let directory = format!("releases/{release}");
        let meant = fs::read_to_string(path(&directory).join("reads-as.json")).unwrap();
        let meant: Value = serde_json::from_str(&meant).unwrap();
        assert_eq!(reads_as(&files(&directory)), meant, "{release}");
    }
}

/// Offsets of the bytes of a record that version 1 does not use; docs/formats/boot-state.md.
pub(crate) const RESERVED: [core::ops::Range<usize>; 6] =
    [26..32, 67..68, 70..72, 163..164, 166..168, 272..512];

#[test]
fn what_a_later_build_put_into_a_record_survives_this_one() {
    for release in releases() {
        let text = &files(&format!("releases/{release}"))["boot-state-reserved.hex"];
        let before: [u8; 512] = from_hex(text);
        let mut record = Record::decode(&before).unwrap();
        // From a start to a verdict against slot B, and another image in it.
        let (digest, booted) = (record.b.digest, Target::A);
        record = transition::start(&record, Target::B, Nonce([3; 16])).unwrap();
        record = transition::give_up(&record, Slot::B, &digest).unwrap();
        record = transition::clear(&record, Slot::B, booted).unwrap();
        record = transition::stage(&record, Slot::B, super::image(9), booted).unwrap();
        record = transition::activate(&record, Slot::B, booted).unwrap();
        let after = record.encode();
        assert_ne!(Digest::of(&before), Digest::of(&after));
        for range in RESERVED {
            assert_eq!(
                after[range.clone()],
                before[range.clone()],
                "{release}: {range:?}"
            );
            assert!(before[range].iter().all(|byte| *byte == 0xa5));
        }
    }
}
