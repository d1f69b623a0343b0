//! One version in both slots: they are told apart by where they lie, and nothing else.

use boot_core::{Nonce, Slot, Target, transition};

use crate::fixture::{Fixture, Image};

#[test]
fn the_same_bundle_goes_into_both_slots() {
    let machine = Fixture::new();
    let running = Image::new("1.0");
    let before = machine.untouchable();
    let file = machine.file("bundle.spb", &running.bundle());
    let installed = machine.run(&["install", "--json", &file]).ok().json();
    assert_eq!(installed["installed"]["fetched"], 0, "{installed}");
    machine.assert_holds(&running, "staged");
    assert!(machine.untouchable() == before);

    machine.run(&["activate"]).ok();
    machine.change(|r| transition::start(r, Target::B, Nonce([5; 16])).unwrap());
    machine.boots(Target::B, &running);
    machine.run(&["mark-good"]).ok();
    let status = machine.run(&["status", "--json"]).ok().json();
    assert_eq!(status["booted"]["slot"], "b");
    assert_eq!(
        status["slots"]["a"]["manifest"],
        status["slots"]["b"]["manifest"]
    );

    // What is found out about the one does not condemn the other.
    let digest = running.digest();
    machine
        .store()
        .quarantine(&digest, "the root is damaged", 1)
        .unwrap();
    machine.change(|r| transition::give_up(r, Slot::B, &digest).unwrap());
    machine.boots(Target::A, &running);
    let record = machine.record();
    assert_eq!(record.a.status().name(), "good");
    assert_eq!(record.b.status().name(), "given-up");
    assert_eq!(machine.run(&["status", "--json"]).ok().json()["next"], "a");
    machine
        .run(&["install", &file])
        .fails(3, &["in quarantine"]);
    machine.run(&["install", "--force", &file]).ok();
    machine.assert_holds(&running, "staged");
}
