//! Slots whose disk has rotted: written anew from the other one, or given up so that something can be installed.

use std::os::unix::fs::FileExt as _;

use boot_core::{Nonce, Slot, Target, transition};

use crate::fixture::{Fixture, Image};

/// Version 2.0 was installed into slot B and is good; 1.0 runs from slot A.
fn two_good() -> (Fixture, Image) {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", &file]).ok();
    machine.change(|r| {
        let r = transition::activate(r, Slot::B, Target::A).unwrap();
        let r = transition::start(&r, Target::B, Nonce([5; 16])).unwrap();
        transition::mark_good(&r, Slot::B, &image.digest(), Target::B).unwrap()
    });
    (machine, image)
}

pub(crate) fn flip(machine: &Fixture, label: &str, at: u64) {
    let file = machine.partition(label);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_damaged_slot_is_written_from_the_other_one() {
    for (label, at) in [("root-b", 5000), ("boot-b", 0), ("boot-b", (1 << 20) + 77)] {
        let (machine, _) = two_good();
        let before = machine.untouchable();
        flip(&machine, label, at);
        let said = machine.run(&["repair-slot", "--json"]).ok().json();
        assert_eq!(said["repaired"]["version"], "1.0");
        assert_eq!(said["status"], "staged");
        machine.assert_holds(&Image::new("1.0"), "staged");
        assert!(machine.untouchable() == before);
        let history = machine.run(&["history"]).ok().out();
        assert!(history.contains("damaged: "), "{history}");
        assert!(history.contains("version 1.0 from slot A"), "{history}");
        // Not the version's fault.
        assert!(!history.contains("quarantine"), "{history}");
        let again = machine.run(&["repair-slot", "--json"]).ok().json();
        assert_eq!(again["repaired"], serde_json::Value::Null);
        machine.run(&["activate"]).ok();
    }
}

#[test]
fn what_is_whole_is_not_overwritten_and_what_is_damaged_not_copied() {
    let (machine, image) = two_good();
    machine
        .run(&["repair-slot"])
        .fails(3, &["slot B is not damaged", "version 2.0"]);
    machine
        .run(&["give-up"])
        .fails(3, &["slot B is not damaged"]);
    flip(&machine, "root-a", 70_000);
    flip(&machine, "root-b", 70_000);
    machine
        .run(&["repair-slot"])
        .fails(4, &["slot A", "the root is damaged", "bootctl install"]);
    assert_eq!(machine.record().b.digest, image.digest());
    assert_eq!(machine.record().b.status().name(), "good");
}

/// Recovery runs. The record calls slot A good, and slot A has rotted; slot B has never held anything.
#[test]
fn a_rotten_slot_that_the_record_calls_good_is_given_up_and_written() {
    let machine = Fixture::new();
    flip(&machine, "root-a", 9 << 20 >> 3);
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine
        .run(&["install", "--slot", "a", &file])
        .fails(3, &["slot A can still start", "bootctl give-up"]);
    machine
        .run(&["repair-slot", "--slot", "a"])
        .fails(4, &["slot B", "bootctl install"]);
    machine
        .run(&["give-up", "--slot", "b"])
        .fails(3, &["slot B is empty"]);
    let said = machine.run(&["give-up", "--slot", "a"]).ok().out();
    assert!(said.contains("the root is damaged"), "{said}");
    assert_eq!(machine.record().a.status().name(), "given-up");
    machine
        .run(&["install", "--slot", "a", "--now", &file])
        .ok();
    assert_eq!(machine.record().a.digest, image.digest());
    assert_eq!(machine.record().a.status().name(), "trial");
}

/// Recovery runs, because slot A was left by an operator and slot B has rotted.
#[test]
fn in_recovery_a_slot_is_repaired_from_one_that_does_not_start() {
    let (machine, _) = two_good();
    machine.change(|r| transition::give_up(r, Slot::A, &r.a.digest.clone()).unwrap());
    flip(&machine, "boot-b", (1 << 20) + 3);
    machine.boots(Target::Recovery, &Image::new("1.0"));
    machine
        .run(&["repair-slot"])
        .fails(2, &["no slot was named"]);
    machine.run(&["repair-slot", "--slot", "b", "--now"]).ok();
    machine.assert_holds(&Image::new("1.0"), "trial");
}
