//! Which slot comes first, where things lie and what they are called: single cases beside the properties of `rules.rs`.
#![allow(clippy::unwrap_used)]

use boot_core::{
    Device as _, Digest, Slot, Target,
    event::Stage,
    floor::Level,
    record::{Record, SlotContents},
    select::{Selector, Why},
    store::{self, BootState, COPIES, PARTITION_SIZE},
    test_support::{MemoryDevice, trust},
    transition::{self, LONG_STREAK},
};

fn contents(number: u8, security_version: u64) -> SlotContents {
    SlotContents {
        version: "1.0".parse().unwrap(),
        level: Level::new(security_version, 1),
        digest: Digest([number; 32]),
    }
}

/// Both slots are good; slot B comes first.
fn two_good_slots() -> Record {
    let mut record = transition::rebuild(Some(contents(1, 1)), Some(contents(2, 1)));
    for (slot, priority) in [(&mut record.a, 1), (&mut record.b, 2)] {
        (slot.priority, slot.tries, slot.successful) = (priority, 0, true);
    }
    record
}

fn first(record: &Record) -> Target {
    Selector::new(record).next().unwrap().target
}

#[test]
fn the_partition_is_where_the_format_says() {
    assert_eq!(store::COPIES, [0, 0x10_0000]);
    assert_eq!(store::EVENT_RING, 0x20_0000);
    assert_eq!(store::QUARANTINE_RING, 0x30_0000);
    assert_eq!(store::PARTITION_SIZE, 0x40_0000);
    assert_eq!(store::STRIDE, 0x1000);
}

#[test]
fn a_rebuilt_record_gives_each_slot_one_try_and_the_higher_security_version_the_first() {
    for (a, b, expected) in [(1, 1, Target::A), (2, 1, Target::A), (1, 2, Target::B)] {
        let record = transition::rebuild(Some(contents(1, a)), Some(contents(2, b)));
        assert_eq!((record.a.tries, record.b.tries), (1, 1));
        assert!(record.a.priority > 0 && record.b.priority > 0);
        assert_ne!(record.a.priority, record.b.priority);
        assert_eq!(first(&record), expected, "{a} and {b}");
    }
}

#[test]
fn of_two_good_slots_the_one_with_a_long_streak_yields() {
    let mut record = two_good_slots();
    assert_eq!(first(&record), Target::B);
    record.b.failure_streak = LONG_STREAK;
    assert_eq!(first(&record), Target::A);
    (record.a, record.b) = (record.b, record.a);
    assert_eq!(first(&record), Target::B);
    record.b.failure_streak = LONG_STREAK;
    assert_eq!(first(&record), Target::A, "as long: by priority");
}

#[test]
fn a_slot_on_trial_that_is_rolled_back_has_no_tries_left() {
    let mut record = two_good_slots();
    (record.b.successful, record.b.tries) = (false, 2);
    let back = transition::rollback(&record, Slot::B).unwrap();
    assert_eq!(back.b.tries, 0);
    assert_eq!(first(&back), Target::A);
}

#[test]
fn the_copy_that_wins_is_named() {
    let record = two_good_slots();
    let mut permits_less = record.clone();
    permits_less.a.priority = 0;
    for (copies, newest) in [
        ([&record, &permits_less], 1),
        ([&permits_less, &record], 0),
        ([&record, &record], 0),
    ] {
        let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
        for (record, place) in copies.iter().zip(COPIES) {
            device.write_at(place, &record.encode()).unwrap();
        }
        let loaded = BootState::new(device).load();
        assert_eq!(loaded.newest, Some(newest));
        assert_eq!(loaded.record.as_ref(), Some(copies[newest]));
    }
}

#[test]
fn a_record_with_an_empty_slot_permits_less() {
    let mut full = two_good_slots();
    (full.b.priority, full.b.successful) = (0, false);
    let mut emptier = full.clone();
    emptier.b.digest = Digest::ZERO;
    for (one, other) in [(&full, &emptier), (&emptier, &full)] {
        assert_eq!(one.clone().that_permits_less(other.clone()), emptier);
    }
}

#[test]
fn only_what_is_in_quarantine_is_found_there() {
    let mut store = BootState::new(MemoryDevice::new(PARTITION_SIZE, 512));
    store.quarantine(&Digest([1; 32]), "bad", 0).unwrap();
    assert_eq!(store.quarantine_entry(&Digest([2; 32])), Ok(None));
    let found = store.quarantine_entry(&Digest([1; 32])).unwrap();
    assert_eq!(found.unwrap().reason, "bad");
}

#[test]
fn an_entry_says_what_is_in_its_slot() {
    let record = transition::rebuild(Some(contents(1, 1)), None);
    assert_eq!(record.a.contents(), Some(contents(1, 1)));
    assert_eq!(record.b.contents(), None);
    assert!(format!("{record:?}").contains("Reserved(..)"));
}

#[test]
fn targets_have_the_names_that_people_and_the_partition_table_know() {
    let names = Target::ALL.map(|it| (format!("{it}"), it.label_boot()));
    let expected = [
        ("slot A", "boot-a"),
        ("slot B", "boot-b"),
        ("recovery", "boot-r"),
    ];
    assert_eq!(
        names,
        expected.map(|(name, label)| (name.to_owned(), label))
    );
}

#[test]
fn stages_have_names() {
    let stages = [
        Stage::LOADER,
        Stage::INITRD,
        Stage::BOOTCTL,
        Stage::RECOVERY,
        Stage(9),
    ];
    let expected = ["loader", "initrd", "bootctl", "recovery", "unknown"];
    assert_eq!(stages.map(Stage::name), expected);
}

#[test]
fn the_root_of_trust_is_told_in_one_line() {
    let told = "product test, x86_64, layout ab-1, 1 of 1 root key(s)";
    assert_eq!(trust().summary(), told);
}

#[test]
fn reasons_have_the_names_that_the_hand_over_has() {
    for why in [
        Why::Priority,
        Why::OneShot,
        Why::Uncounted,
        Why::Rebuilt,
        Why::Unrecorded,
    ] {
        let written = serde_json::to_value(why).unwrap();
        assert_eq!(written, why.name());
        assert_eq!(format!("{why}"), why.name());
    }
}
