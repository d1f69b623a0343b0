//! A `state` that is damaged, missing, a newer version's, or full.

use std::os::unix::fs::FileExt as _;

use boot_core::event::EventKind;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Image};
use crate::serve::Service;
use crate::systemd::Systemd;

/// A machine whose agent could not use `state`, for this reason.
fn without_state(problem: &str) -> Fixture {
    let machine = Fixture::new();
    let disk = std::fs::File::create(machine.path("state")).unwrap();
    disk.set_len(256 << 20).unwrap();
    facts(&machine, |facts| {
        facts["state"] =
            json!({"status": "degraded", "problem": problem, "reason": "reading state: lost"});
        facts["partitions"]["state"] = "/dev/state".into();
    });
    machine
}

fn facts(machine: &Fixture, change: impl FnOnce(&mut Value)) {
    let path = machine.root().join("run/sternpost/boot.json");
    let mut facts = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut facts);
    std::fs::write(path, facts.to_string()).unwrap();
}

#[test]
fn what_is_damaged_is_erased_when_an_operator_says_so() {
    let machine = without_state("damaged");
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("! the state partition is not in use: reading state: lost\n  next: e2fsck"),
        "{status}"
    );
    machine.run(&["erase-state"]).ok();
    let mut magic = [0; 2];
    let state = machine.partition("state");
    state.read_exact_at(&mut magic, 1024 + 56).unwrap();
    assert_eq!(magic, [0x53, 0xef]);
    let last = machine.store().events().unwrap().pop().unwrap();
    assert_eq!(last.kind, EventKind::STATE_ERASED);
}

#[test]
fn nothing_but_damage_is_erased_without_force() {
    let untouched = |machine: &Fixture| {
        let state = std::fs::read(machine.path("state")).unwrap_or_default();
        assert!(state.iter().all(|byte| *byte == 0));
        assert!(machine.store().events().unwrap().is_empty());
    };
    let machine = without_state("unusable");
    machine
        .run(&["erase-state"])
        .fails(3, &["reading state: lost", "--force"]);
    untouched(&machine);
    machine.run(&["erase-state", "--force"]).ok();

    let machine = without_state("missing");
    machine
        .run(&["erase-state", "--force"])
        .fails(3, &["not in use"]);
    untouched(&machine);

    let machine = Fixture::new();
    machine
        .run(&["erase-state", "--force"])
        .fails(3, &["state is in use"]);
    untouched(&machine);
}

#[test]
fn a_device_that_cannot_be_formatted_is_said() {
    let machine = without_state("damaged");
    machine.partition("state").set_len(4096).unwrap();
    machine
        .run(&["erase-state"])
        .fails(1, &["mkfs.ext4 ended with", "look at the disk"]);
    assert!(machine.store().events().unwrap().is_empty());
}

#[test]
fn what_a_newer_version_left_is_said() {
    let machine = Fixture::new();
    let owner = r#"{"format":1,"state_epoch":2,"version":"9.0","manifest":null,"kubernetes":null}"#;
    std::fs::write(machine.root().join("state/sternpost/owner.json"), owner).unwrap();
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("left by version 9.0 (state epoch 2; version 1.0 has 1)\n  next: install"),
        "{status}"
    );
}

/// No file can be made below `state/sternpost`, as on a filesystem without an inode left.
#[test]
fn every_command_works_without_room_on_state() {
    let machine = Fixture::new();
    let state = machine.root().join("state/sternpost");
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::write(&state, "").unwrap();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", &file]).ok();
    machine.run(&["activate"]).ok();
    machine.change(|r| {
        boot_core::transition::start(r, boot_core::Target::B, boot_core::Nonce([5; 16])).unwrap()
    });
    machine.boots(boot_core::Target::B, &image);
    machine.run(&["profile", "apply"]).ok();
    machine.run(&["mark-good"]).ok();
    machine.run(&["rollback"]).ok();
    let history = machine.run(&["history"]).ok().out();
    assert!(history.contains("rolled-back"), "{history}");
    machine.run(&["status"]).ok();
    assert_eq!(machine.record().a.status().name(), "good");
    assert_eq!(machine.record().b.status().name(), "good");
}

/// The kernel's count of errors lies beside what says how long the machine has been up.
#[test]
fn an_error_in_state_restarts_a_machine_that_has_been_up_for_long() {
    let machine = Fixture::new();
    facts(&machine, |facts| {
        facts["partitions"]["state"] = "/dev/state".into()
    });
    let write = |path: &str, text: &str| {
        let path = machine.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    std::fs::File::create(machine.path("state")).unwrap();
    write("sys/fs/ext4/state/errors_count", "2\n");
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    write("proc/uptime", "21599.99 80000.01\n");
    let service = Service::start(&machine);
    service.wait(&machine, |r| {
        r["degraded"].to_string().contains("nothing is kept")
    });
    assert!(systemd.started().is_empty());
    drop(service);

    write("proc/uptime", "21600.01 80000.01\n");
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    let last = machine.store().events().unwrap().pop().unwrap();
    assert_eq!(last.kind, EventKind::STATE_PROBLEM);
    drop(service);
}
