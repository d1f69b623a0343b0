//! The test vectors of docs/formats. What is fixed there must decode and encode as it always did.
//!
//! `STERNPOST_WRITE_VECTORS=1 cargo test -p boot-core --test vectors` writes those that are missing.
#![allow(clippy::unwrap_used)]

#[path = "vectors/releases.rs"]
mod releases;
#[path = "vectors/table.rs"]
mod table;

use std::{fs, path::PathBuf};

use boot_core::{
    Architecture, Digest, Nonce, Target,
    bundle::Header,
    dsse::{Envelope, pae},
    esp,
    event::{Event, EventKind, Stage},
    floor::{Floors, Level},
    hand_over::{HandOver, Rejection, Timer, Times},
    keyring::Chain,
    layout::{Sizes, plan},
    manifest::{Kind, Manifest, MeasuredEvent},
    public_key::KeyFormat,
    quarantine::QuarantineEntry,
    record::{Corrupt, Record, SlotContents},
    select::Why,
    slot_header::SlotHeader,
    test_support::{
        MemoryDevice, P256_ROOT, P256_SIGNING, ROOT, SIGNING, Signers, keyring_chain,
        keyring_chain_v2, manifest, program, trust, trust_v2,
    },
    transition,
    trust::Trust,
    types::{NUMBERS_END, Salt},
    verity::{BlockHasher, TreeBuilder},
};
use serde_json::{Value, json};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("STERNPOST_SOURCE"))
        .join("docs/formats/vectors")
        .join(name)
}

/// The vector, which is written from `now` if it is missing and writing is asked for.
fn vector(name: &str, now: &str) -> String {
    let path = path(name);
    if !path.exists() && std::env::var_os("STERNPOST_WRITE_VECTORS").is_some() {
        fs::write(&path, now).unwrap();
    }
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Hexadecimal in lines of 32 bytes, each with its offset; runs of zero lines left out.
fn to_hex(bytes: &[u8]) -> String {
    let lines = bytes
        .chunks(32)
        .enumerate()
        .filter(|(_, line)| line.iter().any(|it| *it != 0));
    lines
        .map(|(at, line)| format!("{:04} {}\n", at * 32, hex::encode(line)))
        .collect()
}

fn from_hex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    for line in text.lines() {
        let (at, digits) = line.split_once(' ').unwrap();
        let (at, line): (usize, _) = (at.parse().unwrap(), hex::decode(digits).unwrap());
        bytes[at..at + line.len()].copy_from_slice(&line);
    }
    bytes
}

fn check_bytes<const N: usize>(name: &str, now: [u8; N]) -> [u8; N] {
    let fixed = from_hex(&vector(name, &to_hex(&now)));
    assert_eq!(to_hex(&now), to_hex(&fixed), "{name}");
    fixed
}

fn check_json(name: &str, now: &Value) {
    let fixed = vector(name, &(serde_json::to_string_pretty(now).unwrap() + "\n"));
    assert_eq!(
        *now,
        serde_json::from_str::<Value>(&fixed).unwrap(),
        "{name}"
    );
}

fn image(number: u8) -> SlotContents {
    SlotContents {
        version: format!("1.2.{number}").parse().unwrap(),
        level: Level::new(number.into(), u64::from(number) + 10),
        digest: Digest([number; 32]),
    }
}

fn describe(record: &Record) -> Value {
    let slot = |entry: &boot_core::record::SlotEntry| {
        json!({
            "status": entry.status().name(), "priority": entry.priority, "tries": entry.tries,
            "successful": entry.successful, "failure_streak": entry.failure_streak,
            "security_version": entry.security_version, "digest": entry.digest,
            "version": entry.version.as_str(), "keyring_serial": entry.keyring_serial(),
        })
    };
    json!({
        "sequence": record.sequence, "last_tried": record.last_tried, "one_shot": record.one_shot,
        "floor": record.floors.system.security_version,
        "recovery_floor": record.floors.recovery.security_version,
        "keyring_floor": record.floors.system.keyring_serial,
        "recovery_keyring_floor": record.floors.recovery.keyring_serial, "nonce": record.nonce,
        "a": slot(&record.a), "b": slot(&record.b),
    })
}

#[test]
fn boot_state() {
    let new = transition::first_image(image(1));
    let nonce = Nonce(*b"0123456789abcdef");
    let mut busy = transition::start(&new, Target::A, nonce).unwrap();
    busy = transition::mark_good(&busy, boot_core::Slot::A, &image(1).digest, Target::A).unwrap();
    busy = transition::stage(&busy, boot_core::Slot::B, image(2), Target::A).unwrap();
    busy = transition::activate(&busy, boot_core::Slot::B, Target::A).unwrap();
    busy = transition::set_one_shot(&busy, Some(Target::Recovery)).unwrap();
    busy = transition::raise_floor(&busy);
    busy.floors.recovery = Level::new(7, 17);
    busy.sequence = 0x0102_0304_0506_0708;
    busy.a.failure_streak = 0x0201;
    let mut described = serde_json::Map::new();
    for (name, record) in [("boot-state-new.hex", &new), ("boot-state-busy.hex", &busy)] {
        let bytes = check_bytes(name, record.encode());
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(record));
        described.insert(name.into(), describe(record));
    }
    // Written by a later build: every reserved byte is set, and must come out as it went in.
    let mut reserved = busy.encode();
    for range in releases::RESERVED {
        reserved[range].fill(0xa5);
    }
    reserved[12..16].fill(0);
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&reserved);
    reserved[12..16].copy_from_slice(&crc.to_le_bytes());
    // Its number is one that none gets: not a record.
    let mut beyond = busy.clone();
    beyond.sequence = NUMBERS_END;
    let bytes = check_bytes("boot-state-numbers-end.hex", beyond.encode());
    assert_eq!(
        Record::decode(&bytes),
        Err(Corrupt::Range("sequence number"))
    );
    let bytes = check_bytes("boot-state-reserved.hex", reserved);
    let record = Record::decode(&bytes).unwrap();
    assert_eq!(record.encode(), bytes);
    described.insert("boot-state-reserved.hex".into(), describe(&record));
    // Written by a build that knew of no keyring serials: there are none, and the bytes stay as they are.
    let name = "boot-state-without-keyrings.hex";
    let bytes = from_hex(&vector(name, ""));
    let record = Record::decode(&bytes).unwrap();
    assert_eq!(record.encode(), bytes);
    described.insert(name.into(), describe(&record));
    check_json("boot-state.json", &described.into());
}

#[test]
fn rings() {
    let mut event = Event::new(
        Stage::BOOTCTL,
        EventKind::GIVEN_UP,
        "kubelet: not ready — gave up",
    );
    event = event.about(Target::B);
    event.sequence = 258;
    event.time = 1_790_000_000;
    event.nonce = Nonce([9; 16]);
    event.digest = Digest([2; 32]);
    assert_eq!(
        Event::decode(&check_bytes("event.hex", event.encode())),
        Some(event)
    );
    let entry = QuarantineEntry {
        sequence: 5,
        time: 1_790_000_000,
        digest: Digest([2; 32]),
        reason: "unhealthy: kubelet".into(),
    };
    let bytes = check_bytes("quarantine.hex", entry.encode());
    assert_eq!(QuarantineEntry::decode(&bytes), Some(entry));
}

#[test]
fn slot_header() {
    let header = SlotHeader::new(Target::B, 5000, 700, 12_345_678, Digest([2; 32])).unwrap();
    assert_eq!(header.keyring_offset, 12288);
    let bytes = check_bytes("slot-header.hex", header.encode());
    assert_eq!(SlotHeader::decode(&bytes), Ok(header));
}

#[test]
fn bundle_header() {
    let header = Header {
        flags: 0,
        envelope_length: 5000,
        keyring_length: 700,
        uki_frames: 4,
        root_frames: 25,
        leaves_length: 25 * 1024 * 32,
    };
    let bytes = check_bytes("bundle-header.hex", header.encode());
    assert_eq!(Header::decode(&bytes), Ok(header));
    assert_eq!(
        header.frames_offset(),
        64 + 5000 + 700 + 29 * 4 + 25 * 1024 * 32
    );
}

#[test]
fn loader() {
    let header = Header {
        flags: 0,
        envelope_length: 900,
        keyring_length: 700,
        uki_frames: 1,
        root_frames: 0,
        leaves_length: 0,
    };
    let bytes = check_bytes("bundle-header-loader.hex", header.encode());
    assert_eq!(Header::decode(&bytes), Ok(header));
    let loader = program(Architecture::X86_64, &trust().to_section().unwrap());
    let manifest = Manifest {
        state_epoch: 0,
        ..manifest(Kind::Loader, "1.2.3", 4, &loader)
    };
    let payload = manifest.to_payload();
    check_json(
        "manifest-loader.json",
        &serde_json::from_slice(&payload).unwrap(),
    );
    let fixed = fs::read(path("manifest-loader.json")).unwrap();
    assert_eq!(Manifest::parse(&fixed), Ok(manifest.clone()));
    assert!(header.check_against(&manifest).is_ok());
    assert_eq!(Trust::from_intact_program(&loader), Ok(trust()));

    let mut device = MemoryDevice::new(64 << 20, 512);
    esp::write(&mut device, b"loader for x86_64", Architecture::X86_64).unwrap();
    let now = to_hex(&device.bytes);
    assert_eq!(now, vector("esp.hex", &now));
}

/// What a start measures, which this build reads and no program says yet.
#[test]
fn manifest_with_events() {
    let event = |pcr, what: &str| MeasuredEvent {
        pcr,
        digest: Digest::of(what.as_bytes()),
        what: what.into(),
    };
    let manifest = Manifest {
        events: vec![
            event(4, "UKI"),
            event(11, ".linux"),
            event(11, "enter-initrd"),
        ],
        ..manifest(Kind::System, "1.2.3", 4, &[0x55; 4097])
    };
    check_json(
        "manifest-events.json",
        &serde_json::from_slice(&manifest.to_payload()).unwrap(),
    );
    let fixed = fs::read(path("manifest-events.json")).unwrap();
    assert_eq!(Manifest::parse(&fixed), Ok(manifest));
}

/// Kinds that this build reads and no program makes yet.
#[test]
fn content_extension_and_installer() {
    let uki = [0x55; 4097];
    for kind in [Kind::Content, Kind::Extension, Kind::Installer] {
        let name = format!("manifest-{kind}.json");
        let manifest = manifest(kind, "1.2.3", 4, &uki);
        check_json(
            &name,
            &serde_json::from_slice(&manifest.to_payload()).unwrap(),
        );
        let fixed = fs::read(path(&name)).unwrap();
        assert_eq!(Manifest::parse(&fixed), Ok(manifest));
    }
    let header = Header {
        flags: 0,
        envelope_length: 900,
        keyring_length: 700,
        uki_frames: 0,
        root_frames: 1,
        leaves_length: 32,
    };
    let bytes = check_bytes("bundle-header-content.hex", header.encode());
    assert_eq!(Header::decode(&bytes), Ok(header));
    let content = manifest(Kind::Content, "1.2.3", 4, &[]);
    assert_eq!(header.check_against(&content), Ok(()));
}

#[test]
fn dsse() {
    let mut envelope = Envelope::new("http://example.com/HelloWorld", *b"hello world");
    // The example of the DSSE specification.
    let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
    assert_eq!(pae(&envelope.payload_type, &envelope.payload), expected);
    ROOT.sign(&mut envelope);
    let json = String::from_utf8(envelope.to_json()).unwrap();
    check_json(
        "dsse.json",
        &json!({
            "seed": hex::encode([ROOT.0; 32]), "public_key": KeyFormat::V1.write(&ROOT.public()),
            "keyid": ROOT.public().keyid(), "pae": hex::encode(expected), "envelope": json,
        }),
    );
    assert_eq!(Envelope::parse(json.as_bytes()), Ok(envelope));

    let mut envelope = Envelope::new("http://example.com/HelloWorld", *b"hello world");
    P256_ROOT.sign(&mut envelope);
    let json = String::from_utf8(envelope.to_json()).unwrap();
    check_json(
        "dsse-ecdsa-p256.json",
        &json!({
            "private_key": hex::encode([P256_ROOT.0; 32]),
            "public_key": KeyFormat::V2.write(&P256_ROOT.public()),
            "keyid": P256_ROOT.public().keyid(), "pae": hex::encode(expected), "envelope": json,
        }),
    );
    assert_eq!(Envelope::parse(json.as_bytes()), Ok(envelope));
}

#[test]
fn signed_json_of_format_2() {
    let now: Value = serde_json::from_slice(&keyring_chain_v2()).unwrap();
    check_json("keyring-2.json", &now);
    let fixed = fs::read(path("keyring-2.json")).unwrap();
    let chain = Chain::verify(&fixed, &trust_v2().root, "test").unwrap();
    let expected = [SIGNING.public(), P256_SIGNING.public()];
    assert_eq!(chain.keyring.signing.keys(), expected);

    let now: Value = serde_json::from_slice(&trust_v2().to_json()).unwrap();
    check_json("trust-2.json", &now);
    let fixed = Trust::from_json(&fs::read(path("trust-2.json")).unwrap()).unwrap();
    assert_eq!(fixed, trust_v2());
    assert_eq!(Trust::from_section(&fixed.to_section().unwrap()), Ok(fixed));
}

#[test]
fn signed_json() {
    let uki = [0x55; 4097];
    let manifest = manifest(Kind::System, "1.2.3", 4, &uki);
    let payload = manifest.to_payload();
    check_json("manifest.json", &serde_json::from_slice(&payload).unwrap());
    let fixed = fs::read(path("manifest.json")).unwrap();
    assert_eq!(Manifest::parse(&fixed), Ok(manifest));

    let chain = keyring_chain(Signers::default());
    check_json("keyring.json", &serde_json::from_slice(&chain).unwrap());
    let fixed = fs::read(path("keyring.json")).unwrap();
    let chain = Chain::verify(&fixed, &trust().root, "test").unwrap();
    assert_eq!(chain.keyring.signing.keys(), [SIGNING.public()]);

    check_json(
        "trust.json",
        &serde_json::from_slice(&trust().to_json()).unwrap(),
    );
    let fixed = Trust::from_json(&fs::read(path("trust.json")).unwrap()).unwrap();
    assert_eq!(fixed, trust());
    assert_eq!(fixed.architecture, Architecture::X86_64);
    assert_eq!(Trust::from_section(&fixed.to_section().unwrap()), Ok(fixed));
}

#[test]
fn verity() {
    let salt = Salt([0x5a; 32]);
    let hasher = BlockHasher::new(&salt);
    let trees = [1_usize, 2, 128, 129, 300, 128 * 128, 128 * 128 + 1].map(|blocks| {
        let mut leaves = Vec::new();
        for block in 0..blocks {
            hasher.append_leaves(&[u8::try_from(block % 251).unwrap(); 4096], &mut leaves);
        }
        let mut builder = TreeBuilder::new(&salt);
        builder.push(&leaves);
        let tree = builder.finish().unwrap();
        let bytes = tree.to_bytes(&leaves);
        json!({
            "blocks": blocks, "root": tree.root, "tree_blocks": bytes.len() / 4096,
            "tree_sha256": Digest::of(&bytes),
        })
    });
    check_json("verity.json", &json!({ "salt": salt, "trees": trees }));
}

#[test]
fn layout() {
    let mib = 1 << 20;
    let sizes = Sizes {
        boot: 80 * mib,
        recovery: 70 * mib - 5,
        root: 400 * mib + 1,
        state: 256 * mib,
    };
    let plans = [512, 4096].map(|sector_size| {
        let plan = plan(&sizes, sector_size).unwrap();
        let partitions: Vec<_> = (plan.partitions.iter())
            .map(|it| {
                json!({
                    "label": it.label.label(), "type": it.label.type_guid().to_string(),
                    "start": it.start, "size": it.size,
                })
            })
            .collect();
        json!({ "sector_size": sector_size, "disk_size": plan.disk_size, "partitions": partitions })
    });
    let Sizes {
        boot,
        recovery,
        root,
        state,
    } = sizes;
    let sizes = json!({ "boot": boot, "recovery": recovery, "root": root, "state": state });
    check_json("layout.json", &json!({ "sizes": sizes, "plans": plans }));
}

#[test]
fn hand_over() {
    let hand_over = HandOver {
        version: 1,
        slot: Target::A,
        why: Why::OneShot,
        nonce: Nonce([0xab; 16]),
        recorded: true,
        disk: "01234567-89ab-cdef-0123-456789abcdef".into(),
        manifest: Digest([2; 32]),
        record_versions: [1, 1],
        loader: "0.1.0".into(),
        secure_boot: false,
        watchdog_seconds: 300,
        timer: Some(Timer {
            driver: "i6300esb".into(),
            seconds: 180,
        }),
        left_out: 0,
        rejected: vec![Rejection {
            slot: Target::Recovery,
            reason: "its partition is missing".into(),
        }],
        times: Times {
            start_us: 3_800_000,
            exec_us: 4_500_000,
        },
        trust: Some(trust().digest()),
        floors: Some(Floors {
            system: Level::new(3, 2),
            recovery: Level::new(1, 1),
        }),
        firmware_floors: None,
    };
    check_json(
        "hand-over.json",
        &serde_json::from_slice(&hand_over.to_json()).unwrap(),
    );
    assert_eq!(
        HandOver::from_json(&fs::read(path("hand-over.json")).unwrap()),
        Ok(hand_over.clone())
    );
    let under_secure_boot = HandOver {
        secure_boot: true,
        firmware_floors: Some(false),
        ..hand_over
    };
    let name = "hand-over-secure-boot.json";
    check_json(
        name,
        &serde_json::from_slice(&under_secure_boot.to_json()).unwrap(),
    );
    assert_eq!(
        HandOver::from_json(&fs::read(path(name)).unwrap()),
        Ok(under_secure_boot)
    );
}
