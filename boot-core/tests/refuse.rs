//! What is refused, and with which reason; and the rings.
#![allow(clippy::unwrap_used)]

use boot_core::{
    Architecture, Device as _, Digest, KeyringSerial, SecurityVersion, Slot, Target,
    boot::Boot,
    bundle::{BundleError, FRAME_MAX, FrameTable, Header},
    device::WriteError,
    dsse::{DsseError, Envelope},
    event::{Event, EventKind, Stage, TEXT_MAX},
    floor::Level,
    keyring::{Chain, KeySet, KeySetError, Keyring, KeyringError, payload_type},
    layout::{Guid, TYPE_ESP},
    manifest::{Kind, Manifest, ManifestError},
    public_key::KeyFormat,
    record::{Corrupt, Record},
    slot_header::{HeaderError, SlotHeader, SlotParts, clear_header, read_slot},
    store::{BootState, CopyHealth, EVENT_RING, PARTITION_SIZE, QUARANTINE_RING, STRIDE},
    test_support::{
        Image, Machine, MemoryDevice, MemoryError, ROOT, SIGNING, Signers, TestKey, manifest, trust,
    },
    transition::{self, RefusedBecause},
    trust::{Trust, TrustError},
    types::Salt,
    verify::{self, Expect, Rejected, Verified, Verify as _},
    verity::{BlockHasher, Mismatch},
};

const EXPECT: Expect = Expect {
    target: Target::A,
    floor: Level::new(2, 0),
};

fn verified(image: &Image, header: &SlotHeader) -> Result<Verified, Rejected> {
    let parts = SlotParts {
        header: header.clone(),
        envelope: image.envelope.clone(),
        keyring: image.keyring.clone(),
    };
    trust().verify(&parts, &EXPECT)
}

fn verify(image: &Image, header: &SlotHeader) -> Result<(), Rejected> {
    verified(image, header).map(drop)
}

fn changed(change: impl FnOnce(&mut Manifest)) -> Image {
    let uki = vec![1; 5000];
    let mut manifest = manifest(Kind::System, "1", 2, &uki);
    change(&mut manifest);
    Image::signed(manifest, uki, Signers::default())
}

#[test]
fn a_slot_is_rejected_with_what_is_wrong_with_it() {
    let check = |image: &Image| verify(image, &image.header(Target::A));
    assert_eq!(check(&changed(|_| {})), Ok(()));
    let sound = changed(|_| {});
    let other = verify(&sound, &sound.header(Target::B));
    assert_eq!(other, Err(Rejected::OtherSlot { found: Target::B }));
    let text = |image: &Image| check(image).unwrap_err().to_string();
    let product = changed(|it| it.product = "toaster".into());
    assert_eq!(
        text(&product),
        r#"it is for product "toaster", this is "test""#
    );
    let architecture = changed(|it| it.architecture = Architecture::Aarch64);
    assert_eq!(
        text(&architecture),
        "it is for aarch64, this machine is x86_64"
    );
    let layout = changed(|it| it.layout = "ab-2".into());
    assert_eq!(
        text(&layout),
        r#"it is for disk layout "ab-2", this disk has "ab-1""#
    );
    let old = changed(|it| it.security_version = SecurityVersion(1));
    assert_eq!(text(&old), "its security version 1 is below the floor 2");
    let kind = changed(|it| (it.kind, it.root) = (Kind::Recovery, None));
    assert_eq!(text(&kind), "its kind is recovery, expected system");
    let format = changed(|it| it.format = 2);
    assert_eq!(check(&format), Err(ManifestError::Format(2).into()));

    let manifest = sound.manifest.clone();
    let wrong = Signers {
        signing: TestKey(9),
        ..Signers::default()
    };
    let mut forged = Image::signed(manifest.clone(), vec![1; 5000], wrong);
    let unsigned = DsseError::Signatures { good: 0, needed: 1 };
    forged.keyring = sound.keyring.clone();
    assert_eq!(check(&forged), Err(Rejected::Signature(unsigned.clone())));
    let foreign = Signers {
        root: TestKey(9),
        ..Signers::default()
    };
    let foreign = Image::signed(manifest, vec![1; 5000], foreign);
    let error = KeyringError::Link {
        link: 1,
        error: unsigned,
    };
    assert_eq!(check(&foreign), Err(Rejected::Keyring(error)));
    for image in [&forged, &foreign, &format] {
        let rejected = check(image).unwrap_err();
        let behind = std::error::Error::source(&rejected).map(ToString::to_string);
        let said = rejected.to_string();
        assert!(
            behind.is_none_or(|behind| !said.contains(&behind)),
            "who prints the sources too says it twice: {said}"
        );
    }

    let mut header = sound.header(Target::A);
    header.manifest_digest = Digest::ZERO;
    assert!(matches!(
        verify(&sound, &header),
        Err(Rejected::HeaderDigest { .. })
    ));
    let mut header = sound.header(Target::A);
    header.uki_length -= 1;
    assert_eq!(
        verify(&sound, &header),
        Err(Rejected::UkiSize {
            found: 4999,
            expected: 5000
        })
    );
    let sound = verified(&sound, &sound.header(Target::A)).unwrap();
    let found = Digest::ZERO;
    assert_eq!(sound.check_uki(&found), Err(Rejected::UkiDigest { found }));
}

#[test]
fn no_kind_stands_in_the_place_of_another() {
    for kind in Kind::ALL {
        let uki = vec![1; 5000];
        let image = Image::signed(manifest(kind, "1", 2, &uki), uki, Signers::default());
        assert_eq!(
            Manifest::parse(&image.manifest.to_payload()).as_ref(),
            Ok(&image.manifest)
        );
        for target in Target::ALL {
            let mut slot = image.device(target, 512);
            let floor = Level::new(2, 0);
            let found = verify::check_manifest(&mut slot, &trust(), &Expect { target, floor });
            let expected = Kind::of(target);
            let found = found.map(|(_, verified)| verified.manifest.kind);
            match kind == expected {
                true => assert_eq!(found, Ok(kind)),
                false => assert_eq!(
                    found,
                    Err(Rejected::Kind {
                        found: kind,
                        expected
                    })
                ),
            }
        }
        // Nor has it the parts of another.
        let mut other = image.manifest;
        other.uki = match other.uki {
            None => changed(|_| {}).manifest.uki,
            Some(_) => None,
        };
        assert!(other.check().is_err(), "{kind}");
        let no_uki = other.uki().err();
        assert_eq!(no_uki, kind.has_uki().then_some(ManifestError::NoUki(kind)));
    }
}

#[test]
fn whether_a_slot_would_start_is_asked_of_all_of_it() {
    for block_size in [512, 4096] {
        let image = changed(|_| {});
        let mut record = Record::empty();
        record.a.digest = image.digest;
        let mut slot = image.device(Target::A, block_size);
        let asked = |slot: &mut MemoryDevice, record: &Record| {
            verify::would_start(slot, Target::A, &trust(), record).map(|it| it.digest)
        };
        assert_eq!(asked(&mut slot, &record), Ok(image.digest));
        record.floors.system.security_version = SecurityVersion(3);
        let old = asked(&mut slot, &record);
        assert!(matches!(old, Err(Rejected::NotAdmitted(_))), "{old:?}");
        record.floors.system.security_version = SecurityVersion(2);
        let other = asked(&mut slot, &Record::empty());
        assert!(matches!(other, Err(Rejected::NotRecorded { .. })));
        let uki = image.header(Target::A).uki_offset;
        slot.bytes[uki as usize + 4999] ^= 1;
        let flipped = asked(&mut slot, &record);
        assert!(matches!(flipped, Err(Rejected::UkiDigest { .. })));
        slot.bad_reads = Some(uki..uki + 1);
        let unread = asked(&mut slot, &record);
        assert!(matches!(unread, Err(Rejected::Unreadable(_))));
        clear_header(&mut slot).unwrap();
        let none = asked(&mut slot, &record);
        assert_eq!(none, Err(Rejected::Header(HeaderError::Empty)));
    }
}

#[test]
fn manifests_with_impossible_fields_are_refused() {
    let refused = |change: fn(&mut Manifest)| changed(change).manifest.check().is_err();
    assert!(refused(|it| it.uki.as_mut().unwrap().size = 0));
    assert!(refused(|it| it.uki.as_mut().unwrap().chunk_size = 4096));
    let more = |it: &mut Manifest| it.uki.as_mut().unwrap().chunks.push(Digest::ZERO);
    assert!(refused(more));
    assert!(refused(|it| it.uki = None));
    assert!(refused(|it| it.root = None));
    assert!(refused(|it| it.kind = Kind::Recovery));
    assert!(refused(|it| it.kind = Kind::Content));
    assert!(!refused(|it| (it.kind, it.uki) = (Kind::Content, None)));
    assert!(!refused(|it| (it.kind, it.root) = (Kind::Installer, None)));
    assert!(refused(|it| it.product = "a b".into()));
    assert!(refused(|it| it.root.as_mut().unwrap().data_size = 4097));
    assert!(refused(|it| it.root.as_mut().unwrap().size += 4096));
    let mut newer = serde_json::to_value(changed(|_| {}).manifest).unwrap();
    newer["from_the_future"] = 1.into();
    assert!(Manifest::parse(newer.to_string().as_bytes()).is_ok());
    let twice = newer.to_string().replacen('{', r#"{"product":"x","#, 1);
    assert!(matches!(
        Manifest::parse(twice.as_bytes()),
        Err(ManifestError::Json(_))
    ));
    let large = vec![b' '; (64 << 10) + 1];
    assert_eq!(
        Manifest::parse(&large),
        Err(ManifestError::TooLarge(large.len()))
    );
}

#[test]
fn distinct_keys_are_counted_not_signatures() {
    const TYPE: &str = payload_type(KeyFormat::V1);
    let keys = || [1, 2, 3].map(|byte| TestKey(byte).public()).to_vec();
    let two_of_three = KeySet::new(KeyFormat::V1, 2, keys()).unwrap();
    let mut envelope = Envelope::new(TYPE, *b"{}");
    TestKey(1).sign(&mut envelope);
    TestKey(1).sign(&mut envelope);
    TestKey(4).sign(&mut envelope);
    let one = Err(DsseError::Signatures { good: 1, needed: 2 });
    assert_eq!(envelope.verify(TYPE, &two_of_three), one);
    TestKey(3).sign(&mut envelope);
    envelope
        .signatures
        .iter_mut()
        .for_each(|it| it.keyid.clear());
    assert_eq!(envelope.verify(TYPE, &two_of_three), Ok(&b"{}"[..]));
    let wrong_type = envelope.verify("other", &two_of_three);
    assert!(matches!(wrong_type, Err(DsseError::PayloadType { .. })));
    assert_eq!(
        KeySet::new(KeyFormat::V1, 0, keys()),
        Err(KeySetError::Threshold {
            threshold: 0,
            keys: 3
        })
    );
    assert_eq!(
        KeySet::new(KeyFormat::V1, 4, keys()),
        Err(KeySetError::Threshold {
            threshold: 4,
            keys: 3
        })
    );
    assert_eq!(
        KeySet::new(KeyFormat::V1, 1, vec![]),
        Err(KeySetError::Count(0))
    );
    assert_eq!(
        KeySet::new(KeyFormat::V1, 1, vec![ROOT.public(); 2]),
        Err(KeySetError::Duplicate)
    );
}

#[test]
fn a_keyring_chain_leads_from_root_to_root() {
    let link = |serial, root: TestKey, signer: TestKey, product: &str| {
        let set = |key: TestKey| KeySet::new(KeyFormat::V1, 1, vec![key.public()]).unwrap();
        let (root, signing) = (set(root), set(SIGNING));
        let product = product.into();
        let ring = Keyring {
            format: 1,
            serial: KeyringSerial(serial),
            product,
            root,
            signing,
            profile: None,
        };
        let mut envelope = ring.to_envelope();
        signer.sign(&mut envelope);
        envelope
    };
    let verify = |links: &[Envelope]| {
        Chain::verify(&Envelope::array_to_json(links), &trust().root, "test").map(|it| it.links)
    };
    let first = link(1, TestKey(5), ROOT, "test");
    assert_eq!(
        verify(&[first.clone(), link(2, TestKey(6), TestKey(5), "test")]),
        Ok(2)
    );
    let by_old_root = verify(&[first.clone(), link(2, TestKey(6), ROOT, "test")]);
    assert!(matches!(
        by_old_root,
        Err(KeyringError::Link { link: 2, .. })
    ));
    let same_serial = verify(&[first.clone(), link(1, TestKey(6), TestKey(5), "test")]);
    assert_eq!(
        same_serial,
        Err(KeyringError::Serial {
            link: 2,
            serial: KeyringSerial(1)
        })
    );
    let other_product = verify(&[link(1, ROOT, ROOT, "toaster")]);
    assert!(matches!(
        other_product,
        Err(KeyringError::Product { link: 1, .. })
    ));
    assert_eq!(verify(&[]), Err(KeyringError::NoLinks));
    let too_many: Vec<_> = (1..=9)
        .map(|serial| link(serial, ROOT, ROOT, "test"))
        .collect();
    assert!(matches!(verify(&too_many), Err(KeyringError::Chain(_))));
    assert_eq!(verify(&too_many[..8]), Ok(8));
}

#[test]
fn a_damaged_copy_is_named_and_the_other_one_used() {
    let mut device = MemoryDevice::new(PARTITION_SIZE, 4096);
    let mut store = BootState::new(&mut device);
    let one = store.commit(&Record::empty()).unwrap();
    let two = store.commit(&one).unwrap();
    assert_eq!((two.sequence, store.load().newest), (2, Some(1)));
    device.bytes[(1 << 20) + 40] ^= 1;
    let loaded = BootState::new(&mut device).load();
    assert_eq!(loaded.record, Some(one));
    assert_eq!(loaded.copies[1], CopyHealth::Corrupt(Corrupt::Checksum));
    device.bad_reads = Some(0..512);
    let loaded = BootState::new(&mut device).load();
    assert_eq!(loaded.record, None);
    assert_eq!(
        loaded.copies[0].to_string(),
        "cannot be read: I/O error at 0"
    );
}

#[test]
fn a_read_error_that_passes_costs_the_record_nothing() {
    let mut device = MemoryDevice::new(PARTITION_SIZE, 4096);
    let mut store = BootState::new(&mut device);
    let one = store.commit(&Record::empty()).unwrap();
    let two = store.commit(&one).unwrap();
    device.passing_errors = 1;
    let loaded = BootState::new(&mut device).load();
    assert_eq!((loaded.record, loaded.newest), (Some(two), Some(1)));
    assert!(matches!(
        loaded.copies[0],
        CopyHealth::Valid { sequence: 1 }
    ));
}

#[test]
fn the_event_ring_wraps_and_skips_torn_entries() {
    let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
    let mut store = BootState::new(&mut device);
    for number in 0..300 {
        let text = format!("{number}");
        store
            .append_event(&Event::new(Stage::LOADER, EventKind::REJECTED, text))
            .unwrap();
    }
    let events = store.events().unwrap();
    assert_eq!((events.len(), events[0].sequence), (256, 44));
    assert_eq!(events[255].text, "299");
    let torn = EVENT_RING + 43 * STRIDE;
    store.device_mut().write_at(torn, &[0xff; 512]).unwrap();
    let long = "ä".repeat(300);
    store
        .append_event(&Event::new(Stage::LOADER, EventKind::REJECTED, long))
        .unwrap();
    let events = store.events().unwrap();
    assert_eq!(
        (events.len(), events[255].sequence),
        (256, 299),
        "the torn one is written again"
    );
    assert_eq!(events[255].text.len(), TEXT_MAX);
    // What a terminal would obey is not shown to it.
    let hostile = Event::new(Stage::LOADER, EventKind::REJECTED, "one\ntwo\x1b[2Jthree");
    store.append_event(&hostile).unwrap();
    assert_eq!(store.events().unwrap()[255].text, "one two [2Jthree");
}

#[test]
fn an_event_counts_only_where_it_was_written() {
    let event = Event::new(Stage::LOADER, EventKind::REJECTED, "text");
    let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
    // At another place than its number says, and with a number that none gets.
    for (index, sequence) in [(3, 4), (255, u64::MAX)] {
        let event = Event {
            sequence,
            ..event.clone()
        };
        device
            .write_at(EVENT_RING + index * STRIDE, &event.encode())
            .unwrap();
    }
    assert_eq!(BootState::new(&mut device).events(), Ok(vec![]));
}

#[test]
fn a_bad_sector_costs_a_ring_one_entry() {
    let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
    let mut store = BootState::new(&mut device);
    for number in 0..5 {
        let event = Event::new(Stage::LOADER, EventKind::REJECTED, format!("{number}"));
        store.append_event(&event).unwrap();
        store.quarantine(&Digest([number; 32]), "bad", 0).unwrap();
    }
    let bad_entry = |ring| ring + 3 * STRIDE..ring + 4 * STRIDE;
    device.bad_reads = Some(bad_entry(EVENT_RING));
    let mut store = BootState::new(&mut device);
    let next = Event::new(Stage::LOADER, EventKind::REJECTED, "next");
    store.append_event(&next).unwrap();
    let events = store.events().unwrap();
    assert_eq!((events.len(), events[4].sequence), (5, 5));
    device.bad_reads = Some(bad_entry(QUARANTINE_RING));
    assert_eq!(BootState::new(&mut device).quarantined().unwrap().len(), 4);
    device.bad_reads = Some(0..PARTITION_SIZE);
    let mut store = BootState::new(&mut device);
    assert!(store.events().is_err() && store.quarantined().is_err());
}

#[test]
fn an_event_goes_to_the_next_place_that_gives_it_back() {
    let places =
        |first: u64, last: u64| Some(EVENT_RING + first * STRIDE..EVENT_RING + last * STRIDE);
    let append = |device: &mut MemoryDevice, text: &str| {
        let event = Event::new(Stage::LOADER, EventKind::REJECTED, text);
        BootState::new(device).append_event(&event)
    };
    let numbers = |device: &mut MemoryDevice| {
        let events = BootState::new(device).events().unwrap();
        events
            .iter()
            .map(|event| event.sequence)
            .collect::<Vec<_>>()
    };
    let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
    append(&mut device, "before").unwrap();
    // Places that cannot be read are passed over, however many.
    device.bad_reads = places(1, 9);
    append(&mut device, "passes over eight").unwrap();
    append(&mut device, "goes on").unwrap();
    device.bad_reads = None;
    assert_eq!(numbers(&mut device), [0, 9, 10]);
    // So are those that give back something else, four at most.
    device.stuck = places(11, 14);
    append(&mut device, "passes over three").unwrap();
    assert_eq!(numbers(&mut device), [0, 9, 10, 14]);
    device.stuck = places(15, 19);
    assert_eq!(append(&mut device, "lost"), Err(WriteError::ReadBack));
    // What takes nothing is not asked again.
    device.stuck = None;
    device.bad_writes = places(15, 16);
    assert_eq!(
        append(&mut device, "refused"),
        Err(WriteError::Device(MemoryError::Io(
            EVENT_RING + 15 * STRIDE
        )))
    );
    assert_eq!(numbers(&mut device), [0, 9, 10, 14]);
}

#[test]
fn a_quarantine_holds_where_a_place_does_not_give_it_back() {
    let places = |first: u64, last: u64| {
        Some(QUARANTINE_RING + first * STRIDE..QUARANTINE_RING + last * STRIDE)
    };
    let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
    device.bad_reads = places(0, 2);
    device.stuck = places(2, 4);
    let mut store = BootState::new(&mut device);
    for number in 1..=12 {
        store.quarantine(&Digest([number; 32]), "bad", 0).unwrap();
    }
    assert_eq!(store.quarantined().unwrap().len(), 12);
    // No place is left but those four, and the oldest entry's.
    store.quarantine(&Digest([13; 32]), "bad", 0).unwrap();
    let quarantined = store.quarantined().unwrap();
    assert_eq!(
        (quarantined[0].digest, quarantined[11].digest),
        (Digest([2; 32]), Digest([13; 32]))
    );
    device.stuck = places(0, 16);
    let mut store = BootState::new(&mut device);
    assert_eq!(
        store.quarantine(&Digest([14; 32]), "bad", 0),
        Err(WriteError::ReadBack)
    );
    assert_eq!(store.release(&Digest([2; 32])), Err(WriteError::ReadBack));
}

#[test]
fn the_quarantine_keeps_the_last_sixteen() {
    let mut store = BootState::new(MemoryDevice::new(PARTITION_SIZE, 512));
    for number in 1..=18 {
        store
            .quarantine(&Digest([number; 32]), "unhealthy", 0)
            .unwrap();
    }
    store.quarantine(&Digest([18; 32]), "again", 0).unwrap();
    let kept = |store: &mut BootState<MemoryDevice>| {
        store
            .quarantined()
            .unwrap()
            .iter()
            .map(|it| it.digest.0[0])
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&mut store), (3..=18).collect::<Vec<_>>());
    assert_eq!(store.release(&Digest([5; 32])), Ok(true));
    assert_eq!(store.release(&Digest([5; 32])), Ok(false));
    store.quarantine(&Digest([19; 32]), "unhealthy", 0).unwrap();
    assert!(
        kept(&mut store).contains(&3),
        "a free place is used before the oldest"
    );
    assert_eq!(
        store
            .quarantine_entry(&Digest([19; 32]))
            .unwrap()
            .unwrap()
            .reason,
        "unhealthy"
    );
}

#[test]
fn verdicts() {
    let image = Image::new(Kind::System, "1", 1);
    let record = transition::first_image(image.contents());
    let good = transition::mark_good(&record, Slot::A, &image.digest, Target::A).unwrap();
    assert!(good.a.is_good());
    let other = transition::mark_good(&record, Slot::A, &Digest([1; 32]), Target::A);
    assert_eq!(other, Err(RefusedBecause::OtherContents(Slot::A)));
    let given_up = transition::give_up(&good, Slot::A, &image.digest).unwrap();
    assert_eq!(given_up.a.status().name(), "given-up");
    let again = transition::activate(&given_up, Slot::A, Target::B).unwrap_err();
    assert_eq!(again.to_string(), "slot A is given-up");
    assert_eq!(
        transition::rollback(&good, Slot::A),
        Err(RefusedBecause::Empty(Slot::B))
    );
    let back = transition::rollback(&good, Slot::B).unwrap();
    assert_eq!((back.a.priority, back.b.priority), (2, 0));
}

#[test]
fn what_the_firmware_refuses_is_recorded_and_the_next_is_tried() {
    let (a, b) = (
        Image::new(Kind::System, "1", 1),
        Image::new(Kind::System, "2", 1),
    );
    let mut record = transition::first_image(a.contents());
    record.a.successful = true;
    record.b = record.a.clone();
    (record.b.priority, record.b.digest) = (1, b.digest);
    let mut machine = Machine::new(4096, [Some(&a), Some(&b), None]);
    machine.set_record(&record);
    machine.now = Some(1_790_000_000);
    let trust = trust();
    let mut boot = Boot::new(&trust);
    assert_eq!(boot.next(&mut machine).unwrap().target, Target::A);
    boot.failed_to_start(&mut machine, Target::A, "LoadImage: not supported");
    assert_eq!(boot.next(&mut machine).unwrap().target, Target::B);
    assert_eq!(boot.rejected()[0].reason, "LoadImage: not supported");
    boot.failed_to_start(&mut machine, Target::B, "again");
    assert_eq!(boot.next(&mut machine), None);
    let events = BootState::new(machine.boot_state.unwrap())
        .events()
        .unwrap();
    let kinds: Vec<_> = events.iter().map(|it| it.kind.name()).collect();
    assert_eq!(
        kinds,
        ["start-failed", "start-failed", "last-resort", "rejected"]
    );
    assert_eq!(events[0].digest, a.digest);
    assert_eq!(events[0].time, 1_790_000_000);
    assert_eq!(events[0].nonce.0[0], 1, "of this start");
}

#[test]
fn a_long_reason_is_cut_between_two_characters() {
    let trust = trust();
    let mut machine = Machine::new(512, [None; 3]);
    let mut boot = Boot::new(&trust);
    let longest = "x".repeat(240);
    let reasons = [
        longest.clone(),
        format!("{longest}x"),
        "é".repeat(121),
        format!("x{longest}é"),
    ];
    for reason in reasons {
        boot.failed_to_start(&mut machine, Target::A, reason);
    }
    let reasons: Vec<_> = boot
        .rejected()
        .iter()
        .map(|it| it.reason.as_str())
        .collect();
    let cut = format!("{longest}…");
    let cut_before_the_last = format!("{}…", "é".repeat(120));
    assert_eq!(
        reasons,
        [
            &longest,
            &cut,
            &cut_before_the_last,
            &format!("x{}…", "x".repeat(239))
        ]
    );
}

#[test]
fn headers_that_point_outside_are_refused() {
    let image = Image::new(Kind::System, "1", 1);
    let header = image.header(Target::A);
    let mut device = image.device(Target::A, 512);
    assert_eq!(read_slot(&mut device).unwrap().header, header);
    let refused = |change: fn(&mut SlotHeader)| {
        let mut header = header.clone();
        change(&mut header);
        header.check(Image::PARTITION_SIZE)
    };
    assert_eq!(
        refused(|it| it.uki_length = 1 << 40),
        Err(HeaderError::Place("UKI"))
    );
    assert_eq!(
        refused(|it| it.uki_offset = u64::MAX - 4095),
        Err(HeaderError::Place("UKI"))
    );
    assert_eq!(
        refused(|it| it.envelope_offset = 0),
        Err(HeaderError::Place("manifest"))
    );
    assert_eq!(
        refused(|it| it.envelope_length = 0),
        Err(HeaderError::Place("manifest"))
    );
    assert_eq!(
        refused(|it| it.keyring_offset += 1),
        Err(HeaderError::Place("keyring chain"))
    );
    device.bytes[20] ^= 1;
    let damaged = read_slot(&mut device).unwrap_err();
    assert_eq!(
        damaged.to_string(),
        "the slot header's checksum does not match"
    );
    device.bytes[..512].fill(0);
    let empty = read_slot(&mut device).unwrap_err().to_string();
    assert_eq!(empty, "no slot header: nothing is completely installed");
}

#[test]
fn bundles_that_do_not_fit_their_manifest_are_refused() {
    let manifest = Image::new(Kind::System, "1", 1).manifest;
    let mut header = Header {
        envelope_length: 9,
        keyring_length: 9,
        ..Header::default()
    };
    let nothing = Header::decode(&header.encode()).unwrap();
    assert_eq!(
        nothing.check_against(&manifest),
        Err(BundleError::Mismatch("number of UKI frames"))
    );
    (header.uki_frames, header.root_frames, header.leaves_length) = (1, 1, 32);
    assert_eq!(header.check_against(&manifest), Ok(()));
    header.leaves_length = 64;
    assert_eq!(
        header.check_against(&manifest),
        Err(BundleError::Mismatch("verity leaves"))
    );
    header.flags = 1;
    assert_eq!(Header::decode(&header.encode()), Err(BundleError::Flags(1)));
    let table = FrameTable::new(vec![5, 0, 7]).unwrap();
    assert_eq!(FrameTable::decode(&table.encode()).as_ref(), Ok(&table));
    assert_eq!(
        (table.frame(2), table.frame(3), table.total()),
        (Some((5, 7)), None, 12)
    );
    assert_eq!(
        FrameTable::new(vec![FRAME_MAX + 1]),
        Err(BundleError::Length("frame"))
    );
}

#[test]
fn the_rest() {
    let hasher = BlockHasher::new(&Salt([1; 32]));
    let mut data = vec![3; 3 * 4096];
    let mut leaves = Vec::new();
    hasher.append_leaves(&data, &mut leaves);
    assert_eq!(hasher.check_run(&leaves, &data), Ok(()));
    data[5000] ^= 1;
    assert_eq!(hasher.check_run(&leaves, &data), Err(Mismatch { block: 1 }));
    assert_eq!(
        hasher.check_run(&leaves[32..], &data),
        Err(Mismatch { block: 3 })
    );

    let esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    assert_eq!(
        (TYPE_ESP.to_string().as_str(), esp.parse::<Guid>()),
        (esp, Ok(TYPE_ESP))
    );
    assert_eq!(TYPE_ESP.0[..4], [0x28, 0x73, 0x2a, 0xc1]);
    assert!(esp[1..].parse::<Guid>().is_err());

    let mut section = trust().to_section().unwrap();
    section[8..12].fill(0);
    assert_eq!(Trust::from_section(&section), Err(TrustError::Unfilled));
    section[8..12].fill(0xff);
    assert_eq!(Trust::from_section(&section), Err(TrustError::Section));
}
