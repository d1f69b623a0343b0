//! Rule 9: which floors count, what firmware keeps of them, and how far they rise. The properties are in `rules.rs`.
#![allow(clippy::unwrap_used)]

mod support;

use boot_core::{
    KeyringSerial, SecurityVersion, Slot, Target,
    boot::{
        Boot,
        variable::{ATTRIBUTES, Answer},
    },
    floor::{Floors, Level, STEP},
    manifest::Kind,
    record::Record,
    select::Why,
    test_support::{Image, Machine, Signers, manifest, trust},
    transition,
};
use support::{Disk, Health, contents, floors, good, machine, trial};

fn variable(bytes: &[u8], attributes: u32) -> Answer {
    Answer::Value {
        bytes: bytes.into(),
        attributes,
    }
}

/// What firmware answers at the beginning of a start in which two good slots of security version 2 and 3 are on the disk
/// and the record's floor is 2, and what it keeps afterwards.
#[test]
fn rule_9_firmwares_variables_are_made_replaced_and_raised_and_none_is_written_over_unread() {
    let two = variable(&2_u64.to_le_bytes(), ATTRIBUTES);
    let nine = variable(&9_u64.to_le_bytes(), ATTRIBUTES);
    let error = Answer::Error("DEVICE_ERROR".into());
    for (before, after) in [
        (Answer::Absent, &two),
        (variable(&0_u64.to_le_bytes(), ATTRIBUTES), &two),
        (variable(&[0xff; 16], 7), &two),
        (variable(&9_u64.to_le_bytes(), 7), &two),
        (Answer::TooLong, &two),
        (nine.clone(), &nine),
        (error.clone(), &error),
    ] {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.a = good(disk.contents(Slot::A), 2);
        record.b = good(disk.contents(Slot::B), 1);
        record.floors = floors(2, 0);
        let mut machine = machine(&disk, Some(&record));
        machine.secure_boot = true;
        machine.variables[0] = before.clone();
        machine.start(&trust());
        assert_eq!(machine.variables[0], *after, "{before:?}");
        let zero = variable(&0_u64.to_le_bytes(), ATTRIBUTES);
        assert!(machine.variables[1..].iter().all(|it| *it == zero));
    }
}

#[test]
fn rule_9_without_secure_boot_firmware_keeps_nothing() {
    let mut machine = machine(&Disk::sound(), None);
    machine.start(&trust());
    assert_eq!(machine.variables, [const { Answer::Absent }; 4]);
}

/// Slots below a floor of firmware's that cannot be read: the record's counts, and is not given up as damage unless
/// nothing else starts.
#[test]
fn rule_9_where_firmwares_floor_is_not_known_the_records_counts() {
    let disk = Disk::sound();
    for (recovery, expected) in [
        (Health::Sound, Target::Recovery),
        (Health::Missing, Target::A),
    ] {
        for answer in [Answer::Error("DEVICE_ERROR".into()), Answer::TooLong] {
            let mut disk = disk.clone();
            disk.health[2] = recovery;
            let mut record = Record::empty();
            record.floors = floors(disk.highest() + 1, 0);
            record.a = good(disk.contents(Slot::A), 2);
            record.b = good(disk.contents(Slot::B), 1);
            let mut machine = machine(&disk, Some(&record));
            machine.secure_boot = true;
            machine.variables[0] = answer;
            let chosen = machine.start(&trust()).unwrap();
            assert_eq!(chosen.target, expected, "{:#?}", machine.log);
        }
    }
}

#[test]
fn rule_9_whether_firmwares_floors_are_known_is_handed_over() {
    let two = variable(&2_u64.to_le_bytes(), ATTRIBUTES);
    for (answer, secure_boot, known) in [
        (two.clone(), true, Some(true)),
        (Answer::Absent, true, Some(true)),
        (Answer::Error("DEVICE_ERROR".into()), true, Some(false)),
        (Answer::TooLong, true, Some(false)),
        (two, false, None),
    ] {
        let mut machine = machine(&Disk::sound(), None);
        machine.secure_boot = secure_boot;
        machine.variables[3] = answer;
        let keys = trust();
        let mut boot = Boot::new(&keys);
        boot.next(&mut machine).unwrap();
        assert_eq!(boot.firmware_floors_known(), known);
    }
}

/// Signed under a keyring that has been replaced since, as one in which a key was withdrawn.
#[test]
fn rule_9_what_was_signed_under_an_older_keyring_does_not_start() {
    let old = Image::new(Kind::System, "1.0", 9);
    let new = Signers {
        serial: 2,
        ..Signers::default()
    };
    let uki = vec![1; 5000];
    let new = Image::signed(manifest(Kind::System, "1.1", 2, &uki), uki, new);
    let mut record = Record::empty();
    record.a = good(old.contents(), 2);
    record.b = good(new.contents(), 1);
    for (recorded, firmware, expected) in [(1, 1, Target::A), (2, 0, Target::B), (0, 2, Target::B)]
    {
        record.floors.system.keyring_serial = KeyringSerial(recorded);
        let mut machine = Machine::new(512, [Some(&old), Some(&new), None]);
        machine.set_record(&record);
        let mut floors = Floors::default();
        floors.system.keyring_serial = KeyringSerial(firmware);
        machine.set_floors(&floors);
        assert_eq!(machine.start(&trust()).unwrap().target, expected);
    }
}

/// Both slots hold what somebody signed with the highest version that there is, and the record says that it is good.
#[test]
fn rule_9_the_highest_security_version_raises_no_floor() {
    for version in [STEP + 1, u64::MAX] {
        let disk = Disk {
            security_versions: [version, version, 1],
            ..Disk::sound()
        };
        let mut record = Record::empty();
        record.a = good(disk.contents(Slot::A), 2);
        record.b = good(disk.contents(Slot::B), 1);
        assert_eq!(
            transition::raise_floor(&record).floors,
            Floors::default().max(serial(1))
        );
        record.floors = floors(version, 0);
        let mut machine = machine(&disk, Some(&record));
        machine.set_floors(&Floors::default());
        assert_eq!(machine.start(&trust()).unwrap().target, Target::A);
        assert_eq!(machine.floors(), Floors::default());
    }
}

fn serial(serial: u64) -> Floors {
    Floors {
        system: Level::new(0, serial),
        recovery: Level::default(),
    }
}

#[test]
fn rule_9_a_floor_above_every_slot_is_not_believed_in_the_last_resort() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.floors.system.security_version = SecurityVersion(disk.highest() + 1);
    record.a = trial(disk.contents(Slot::A), 2, 0);
    record.b = trial(contents(2, disk.highest() + 2), 1, 0);
    let chosen = machine(&disk, Some(&record)).start(&trust()).unwrap();
    assert_eq!((chosen.target, chosen.why), (Target::A, Why::Uncounted));
}

#[test]
fn rule_9_a_floor_above_every_slot_costs_no_try_and_one_below_no_second_look() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.a = trial(disk.contents(Slot::A), 2, 1);
    for (floor, loads) in [(disk.highest() + 1, 3), (2, 1)] {
        record.floors.system.security_version = SecurityVersion(floor);
        let mut machine = machine(&disk, Some(&record));
        let chosen = machine.start(&trust()).unwrap();
        assert_eq!((chosen.target, chosen.why), (Target::A, Why::Priority));
        assert_eq!(machine.loads.len(), loads, "{:#?}", machine.log);
    }
}

#[test]
fn rule_9_a_floor_that_one_slot_reaches_is_believed() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.floors.system.security_version = SecurityVersion(disk.highest());
    record.a = good(disk.contents(Slot::A), 2);
    record.b = trial(disk.contents(Slot::B), 1, 0);
    let mut machine = machine(&disk, Some(&record));
    let chosen = machine.start(&trust()).unwrap();
    assert_eq!((chosen.target, chosen.why), (Target::B, Why::Uncounted));
    assert_eq!(
        machine.record().unwrap().floors.system.security_version,
        record.floors.system.security_version
    );
}
