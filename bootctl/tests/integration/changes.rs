//! Everything but `install`.

use boot_core::{Slot, transition};

use crate::fixture::{Fixture, Image};

/// Version 2.0 has been installed and runs on trial from slot B.
fn on_trial() -> (Fixture, Image) {
    let machine = Fixture::new();
    let (image, _) = machine.upgrade();
    (machine, image)
}

#[test]
fn status_says_what_runs_and_what_is_next() {
    let machine = Fixture::new();
    let status = machine.run(&["status", "--json"]).ok().json();
    assert_eq!(status["booted"]["slot"], "a");
    assert_eq!(status["booted"]["good"], true);
    assert_eq!(status["next"], "a");
    assert_eq!(status["slots"]["a"]["status"], "good");
    assert_eq!(status["slots"]["b"]["status"], "empty");
    let text = machine.run(&["status"]).ok().out();
    assert!(
        text.starts_with("demo 1.0 runs from slot A (it comes first)"),
        "{text}"
    );
    // The stand-in's ESPs are empty.
    assert!(
        text.contains("esp-a: holds no FAT32 filesystem\n  next: "),
        "{text}"
    );
}

#[test]
fn mark_good_and_rollback() {
    let (machine, _) = on_trial();
    assert_eq!(machine.record().b.tries, 2);
    machine.run(&["mark-good"]).ok();
    assert_eq!(machine.record().b.status().name(), "good");
    let rolled = machine
        .run(&["rollback", "--reason", "cameras lost", "--json"])
        .ok()
        .json();
    assert_eq!(rolled["next"], "a");
    assert_eq!(machine.run(&["status", "--json"]).ok().json()["next"], "a");
    let history = machine.run(&["history"]).ok().out();
    assert!(history.contains("rolled-back"), "{history}");
    assert!(history.contains("cameras lost"), "{history}");
}

#[test]
fn rollback_without_a_good_slot_is_refused() {
    let machine = Fixture::new();
    machine
        .run(&["rollback"])
        .fails(3, &["slot B is empty", "install"]);
}

#[test]
fn activate_verifies_what_it_would_start() {
    let machine = Fixture::new();
    machine.run(&["activate"]).fails(3, &["slot B is empty"]);
    let file = machine.file("bundle.spb", &Image::new("2.0").bundle());
    machine.run(&["install", &file]).ok();
    let boot = machine.partition("boot-b");
    std::os::unix::fs::FileExt::write_all_at(&boot, &[1], (1 << 20) + 77).unwrap();
    machine
        .run(&["activate"])
        .fails(4, &["UKI", "install it again"]);
    assert_eq!(machine.record().b.status().name(), "staged");
}

#[test]
fn a_damaged_record_is_said_and_the_other_copy_serves() {
    let machine = Fixture::new();
    let state = machine.partition("boot-state");
    machine.change(Clone::clone);
    std::os::unix::fs::FileExt::write_all_at(&state, &[0xff; 512], 0).unwrap();
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("copy 0 of the boot-state record"),
        "{status}"
    );
    std::os::unix::fs::FileExt::write_all_at(&state, &[0xff; 512], 1 << 20).unwrap();
    machine
        .run(&["mark-good"])
        .fails(1, &["neither copy is valid"]);
    machine.run(&["status"]).ok();
}

#[test]
fn history_shows_the_quarantine() {
    let (machine, image) = on_trial();
    machine
        .store()
        .quarantine(&image.digest(), "node not Ready", 1_795_363_509)
        .unwrap();
    machine.change(|r| transition::give_up(r, Slot::B, &image.digest()).unwrap());
    let history = machine.run(&["history"]).ok().out();
    assert!(history.contains("activated"), "{history}");
    assert!(
        history.contains("2026-11-22 16:05:09 UTC  node not Ready"),
        "{history}"
    );
}

#[test]
fn health_without_a_service_says_so() {
    let machine = Fixture::new();
    machine
        .run(&["health"])
        .fails(1, &["has not said anything"]);
}

#[test]
fn a_failure_is_json_too() {
    let machine = Fixture::new();
    let ran = machine.run(&["rollback", "--json"]);
    assert_eq!(ran.code(), 3);
    assert_eq!(ran.json()["error"]["name"], "refused");
    assert_eq!(ran.json()["error"]["code"], 3);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let machine = Fixture::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            machine
                .run(&["completions", shell])
                .ok()
                .out()
                .contains("mark-good")
        );
    }
    let dir = machine.root().join("man");
    machine.run(&["man", dir.to_str().unwrap()]).ok();
    assert!(dir.join("bootctl-install.1").exists());
}

#[test]
fn every_command_teaches_by_example() {
    let machine = Fixture::new();
    for command in [
        "status",
        "install",
        "activate",
        "mark-good",
        "rollback",
        "history",
        "health",
        "reboot",
        "update-loader",
        "repair-slot",
        "update-recovery",
        "give-up",
    ] {
        let help = machine.run(&[command, "--help"]).ok().out();
        assert!(help.contains("Examples:\n  bootctl"), "{command}: {help}");
    }
}
