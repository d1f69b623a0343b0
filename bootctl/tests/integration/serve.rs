//! `bootctl serve`: from userland to a verdict, over a stand-in for a machine and for systemd.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use boot_core::event::EventKind;
use boot_core::record::Record;
use boot_core::store::COPIES;
use boot_core::{Nonce, Slot, Target, transition};
use serde_json::Value;

use crate::fixture::{Fixture, Image};
use crate::systemd::Systemd;

/// Ends the service when the test does.
pub(crate) struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    pub(crate) fn start(machine: &Fixture) -> Self {
        let log = std::fs::File::create(machine.root().join("serve.log")).unwrap();
        Self(
            machine
                .command(&["serve"])
                .stderr(log)
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// The report, once `done` says so.
    pub(crate) fn wait(&self, machine: &Fixture, done: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(machine.root().join("run/sternpost/serve.json"));
            let report: Value = text
                .ok()
                .and_then(|t| serde_json::from_str(&t).ok())
                .unwrap_or_default();
            if done(&report) {
                return report;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(300),
                "{report:#}\n{}",
                self.log(machine)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it has asked for a restart of the machine.
    pub(crate) fn wait_for_reboot(&self, machine: &Fixture, systemd: &Systemd) {
        self.wait(machine, |_| {
            systemd.started().contains(&"reboot.target".to_owned())
        });
    }

    /// Waits until it has said so.
    fn wait_for_log(&self, machine: &Fixture, line: &str) {
        self.wait(machine, |_| self.log(machine).contains(line));
    }

    /// What it has said.
    pub(crate) fn log(&self, machine: &Fixture) -> String {
        std::fs::read_to_string(machine.root().join("serve.log")).unwrap_or_default()
    }

    /// Stops it as systemd does, and waits.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

fn profile(machine: &Fixture, health: &str) {
    let text = format!("version: 1\nhostname: edge-1\nhealth: {health}\n");
    std::fs::write(machine.root().join("usr/lib/sternpost/profile.yaml"), text).unwrap();
}

/// Version 2.0 is on trial in slot B and has just come up.
fn on_trial(health: &str) -> (Fixture, Image, Systemd) {
    let machine = Fixture::new();
    profile(&machine, health);
    let (image, _) = machine.upgrade();
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    (machine, image, systemd)
}

#[test]
fn a_healthy_slot_on_trial_is_marked_good() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| !r["verdict"].is_null());
    assert_eq!(report["verdict"], "healthy", "{report:#}");
    assert_eq!(report["phase"], "healthy");
    assert_eq!(machine.record().b.status().name(), "good");
    assert_eq!(
        machine.record().floors.system.security_version,
        boot_core::SecurityVersion(1)
    );
    let health = machine.run(&["health"]).ok().out();
    assert!(health.starts_with("healthy"), "{health}");
    // History and status say the same of it, to the second.
    let history = machine.run(&["history", "--json"]).ok().json();
    let mut events = history["events"].as_array().unwrap().iter();
    let marked = events.find(|it| it["kind"] == "marked-good").unwrap();
    let reason = report["reason"].as_str().unwrap();
    assert_eq!(marked["text"], format!("version 2.0: {reason}"));
    // A way down that does not come to its end is none: the service leaves the marker.
    let marker = || fs::read_to_string(machine.root().join("state/sternpost/running")).unwrap();
    let running = marker();
    systemd.state.lock().unwrap().system = "stopping".into();
    service.stop();
    assert_eq!(marker(), running);
    machine.run(&["ended"]).ok();
    assert_eq!(marker().trim(), "ended");
    assert!(machine.root().join("state/sternpost/clock").exists());
}

#[test]
fn what_failed_before_an_upgrade_is_told_from_what_fails_since() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 10s, settle: 2s}");
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    let fails = |unit: &str| {
        let mut state = systemd.state.lock().unwrap();
        state.units.insert(unit.into(), "failed".into());
    };
    fails("till.service");
    let service = Service::start(&machine);
    let kept = machine.root().join("state/sternpost/baseline.json");
    service.wait(&machine, |_| kept.exists());
    service.stop();

    machine.upgrade();
    fails("scale.service");
    std::fs::remove_file(machine.root().join("run/sternpost/serve.json")).unwrap();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["verdict"] == "unhealthy");
    let before = |unit: &str| {
        let findings = report["findings"].as_array().unwrap();
        let it = findings.iter().find(|it| it["name"] == unit);
        it.unwrap_or_else(|| panic!("{report:#}"))["before"].clone()
    };
    assert_eq!(before("unit till.service has not failed"), true);
    assert_eq!(before("unit scale.service has not failed"), Value::Null);
    drop(service);
}

#[test]
fn an_unhealthy_slot_is_given_up_quarantined_and_left() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    systemd
        .state
        .lock()
        .unwrap()
        .units
        .insert("till.service".into(), "failed".into());
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(report["verdict"], "unhealthy");
    assert_eq!(report["reason"], "unit till.service failed");
    let record = machine.record();
    assert_eq!(record.b.status().name(), "given-up");
    assert_eq!(record.a.status().name(), "good");
    let quarantined = machine
        .store()
        .quarantine_entry(&image.digest())
        .unwrap()
        .unwrap();
    assert_eq!(quarantined.reason, "unit till.service failed");
    service.wait_for_reboot(&machine, &systemd);
    let last = machine.store().events().unwrap().pop().unwrap();
    assert_eq!(
        (last.kind, last.text.as_str()),
        (EventKind::GIVEN_UP, "unit till.service failed")
    );
    assert_eq!(machine.run(&["health"]).code(), 1);
    drop(service);
}

#[test]
fn without_a_slot_to_go_back_to_it_stays_up_and_says_so() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    // Slot A's UKI has lost a bit.
    let boot = machine.partition("boot-a");
    std::os::unix::fs::FileExt::write_all_at(&boot, &[1], (1 << 20) + 77).unwrap();
    systemd
        .state
        .lock()
        .unwrap()
        .units
        .insert("till.service".into(), "failed".into());
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| {
        r["degraded"].as_array().is_some_and(|d| d.len() == 2)
    });
    assert_eq!(report["phase"], "degraded");
    assert!(
        report["degraded"][1]
            .as_str()
            .unwrap()
            .contains("no other slot to go back to"),
        "{report:#}"
    );
    assert_eq!(machine.record().b.status().name(), "trial");
    assert!(
        machine
            .store()
            .quarantine_entry(&image.digest())
            .unwrap()
            .is_none()
    );
    assert!(systemd.started().is_empty());
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("! degraded: there is no other slot"),
        "{status}"
    );
    drop(service);
}

#[test]
fn a_good_slot_that_is_unhealthy_is_not_rebooted_and_its_streak_is_cleared() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 40s, settle: 2s}");
    machine.change(|r| transition::start(r, Target::A, Nonce([5; 16])).unwrap());
    assert_eq!(machine.record().a.failure_streak, 1);
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    systemd
        .state
        .lock()
        .unwrap()
        .units
        .insert("till.service".into(), "failed".into());
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["phase"] == "degraded");
    let record = machine.record();
    assert_eq!(record.a.status().name(), "good");
    assert_eq!(record.a.failure_streak, 0);
    assert!(systemd.started().is_empty());
    // It comes right after all.
    systemd.state.lock().unwrap().units.clear();
    let report = service.wait(&machine, |r| r["phase"] == "healthy");
    assert_eq!(report["verdict"], "healthy", "{report:#}");
    assert_eq!(report["degraded"], serde_json::json!([]));
    assert!(systemd.started().is_empty());
    drop(service);
}

#[test]
fn after_an_unclean_end_a_damaged_root_is_given_up_even_if_good() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    machine.run(&["mark-good"]).ok();
    std::fs::write(
        machine.root().join("state/sternpost/running"),
        "another boot\n",
    )
    .unwrap();
    let root = machine.partition("root-b");
    std::os::unix::fs::FileExt::write_all_at(&root, &[1], (8 << 20) + 5000).unwrap();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    assert!(
        report["reason"]
            .as_str()
            .unwrap()
            .contains("the root is damaged: block 2049"),
        "{report:#}"
    );
    assert_eq!(machine.record().b.status().name(), "given-up");
    // The disk is to blame, not the image.
    assert!(
        machine
            .store()
            .quarantine_entry(&image.digest())
            .unwrap()
            .is_none()
    );
    drop((service, systemd));
}

/// Nothing has told the machine the time yet.
fn without_the_time(machine: &Fixture) {
    let applied = r#"{"profile": "x", "problem": null,
        "clock": {"found": 0, "set_to": 1790000000, "implausible": "never saved"}}"#;
    std::fs::write(machine.root().join("run/sternpost/applied.json"), applied).unwrap();
}

#[test]
fn an_unhealthy_slot_is_not_left_for_a_time_that_is_implausible() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    without_the_time(&machine);
    let failed = ("till.service".to_owned(), "failed".to_owned());
    systemd.state.lock().unwrap().units.extend([failed]);
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| !r["verdict"].is_null());
    assert_eq!(report["verdict"], "unhealthy", "{report:#}");
    let stays = |r: &Value| {
        r["degraded"]
            .to_string()
            .contains("not going back for that")
    };
    let report = service.wait(&machine, stays);
    assert_eq!(report["phase"], "degraded", "{report:#}");
    assert_eq!(machine.record().b.status().name(), "trial");
    let quarantined = machine.store().quarantine_entry(&image.digest());
    assert_eq!(quarantined.unwrap(), None);
    drop((service, systemd));
}

#[test]
fn a_damaged_root_is_left_whatever_the_time() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    without_the_time(&machine);
    let marker = machine.root().join("state/sternpost/running");
    std::fs::write(marker, "another boot\n").unwrap();
    let root = machine.partition("root-b");
    std::os::unix::fs::FileExt::write_all_at(&root, &[1], (8 << 20) + 5000).unwrap();
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(machine.record().b.status().name(), "given-up");
    drop((service, systemd));
}

/// Slot A is good, its starts ended without a word, and its root is not what was signed.
fn never_up(machine: &Fixture) {
    machine.change(|record| {
        let mut next = record.clone();
        next.a.failure_streak = transition::LONG_STREAK;
        next
    });
    let root = machine.partition("root-a");
    std::os::unix::fs::FileExt::write_all_at(&root, &[1], 5000).unwrap();
}

#[test]
fn what_is_read_of_a_silent_slot_counts_only_while_nobody_writes() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    never_up(&machine);
    let path = machine.root().join("run/sternpost/install.lock");
    let install = bootctl::os::lock::Lock::take(&path, "install x").unwrap();
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["verdict"] == "healthy");
    service.wait_for_log(&machine, "what was read of slot A does not count");
    assert_eq!(machine.record().a.status().name(), "good");
    drop((service, systemd, install));
}

#[test]
fn the_root_of_a_slot_that_never_came_up_is_read_and_the_slot_given_up() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    never_up(&machine);
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["verdict"] == "healthy");
    // Its event follows the change of the record.
    service.wait(&machine, |_| {
        let events = machine.store().events().unwrap();
        events.iter().any(|it| it.kind == EventKind::GIVEN_UP)
    });
    assert_eq!(machine.record().a.status().name(), "given-up");
    assert_eq!(machine.record().b.status().name(), "good");
    let events = machine.store().events().unwrap();
    let about_a = |kind| {
        events
            .iter()
            .find(|event| event.kind == kind && event.slot == Some(Target::A))
            .map(|event| event.text.clone())
            .unwrap()
    };
    let streak = "version 1.0: 5 starts in a row ended before its userland was up";
    assert_eq!(about_a(EventKind::NEVER_UP), streak);
    let damage = "the root is damaged: block 1 is not what was signed";
    assert_eq!(about_a(EventKind::ROOT_CORRUPT), damage);
    assert_eq!(about_a(EventKind::GIVEN_UP), damage);
    assert!(machine.store().quarantined().unwrap().is_empty());
    drop((service, systemd));
}

#[test]
fn a_verdict_that_was_cut_off_is_completed() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    machine
        .store()
        .quarantine(&image.digest(), "node not Ready", 1)
        .unwrap();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(report["reason"], "node not Ready");
    assert_eq!(machine.record().b.status().name(), "given-up");
    drop((service, systemd));
}

#[test]
fn a_verdict_that_was_cut_off_stands_where_the_machine_stays_up() {
    let (machine, image, systemd) = on_trial("{deadline: 40s, settle: 0s}");
    without_the_time(&machine);
    let quarantined = machine
        .store()
        .quarantine(&image.digest(), "node not Ready", 1);
    quarantined.unwrap();
    let service = Service::start(&machine);
    // Everything is there and holds, and it has been looked at: nothing makes it good.
    let report = service.wait(&machine, |r| {
        let findings = r["findings"].as_array();
        r["brought_up"] == true
            && findings.is_some_and(|it| !it.is_empty() && it.iter().all(|f| f["ok"] == true))
    });
    assert_eq!(report["phase"], "degraded", "{report:#}");
    assert_eq!(report["verdict"], "unhealthy", "{report:#}");
    assert_eq!(report["reason"], "node not Ready");
    assert_eq!(report["condemned"], true, "{report:#}");
    assert_eq!(machine.record().b.status().name(), "trial");
    let quarantined = machine.store().quarantine_entry(&image.digest());
    assert!(quarantined.unwrap().is_some());
    assert!(systemd.started().is_empty());
    drop((service, systemd));
}

#[test]
fn an_image_that_cannot_read_the_profile_is_left() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    std::fs::write(
        machine.root().join("state/sternpost/profile.yaml"),
        "version: 1\nhostnme: x\n",
    )
    .unwrap();
    let applied = machine.run(&["profile", "apply"]).ok().out();
    assert!(
        applied.contains("profile.yaml is not in force"),
        "{applied}"
    );
    let hostname = std::fs::read_to_string(machine.root().join("etc/hostname")).unwrap();
    assert_eq!(hostname, "edge-1\n");
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(machine.record().slot(Slot::B).status().name(), "given-up");
    machine.run(&["profile", "check"]).code_is(9);
    drop((service, systemd));
}

/// The report of a service that ended in this boot after its verdict, before the root was read.
fn cut_off(machine: &Fixture) {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let report = serde_json::json!({
        "version": 1, "boot_id": boot_id.trim(), "started_ms": 1, "phase": "degraded",
        "doing": null, "deadline_seconds": 40, "findings": [], "verdict": "unhealthy",
        "reason": "unit till.service failed", "verdict_ms": 2, "brought_up": true,
        "root": "pending", "degraded": [],
    });
    let path = machine.root().join("run/sternpost/serve.json");
    std::fs::write(path, report.to_string()).unwrap();
    let marker = machine.root().join("state/sternpost/running");
    std::fs::write(marker, boot_id).unwrap();
}

#[test]
fn the_root_is_read_to_its_end_whatever_the_verdict() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 40s, settle: 2s}");
    machine.change(|r| transition::start(r, Target::A, Nonce([5; 16])).unwrap());
    assert_eq!(machine.record().a.failure_streak, 1);
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    cut_off(&machine);
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["root"] == "sound");
    assert_eq!(report["verdict"], "unhealthy", "{report:#}");
    assert_eq!(machine.record().a.failure_streak, 0);
    drop((service, systemd));
}

#[test]
fn a_root_found_damaged_after_the_verdict_is_left_too() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    machine.run(&["mark-good"]).ok();
    cut_off(&machine);
    let root = machine.partition("root-b");
    std::os::unix::fs::FileExt::write_all_at(&root, &[1], (8 << 20) + 5000).unwrap();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(report["root"], "damaged", "{report:#}");
    assert_eq!(machine.record().b.status().name(), "given-up");
    drop((service, systemd));
}

#[test]
fn a_verdict_that_cannot_be_written_is_acted_upon_where_there_is_another_slot() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    // The disk ends before the copy of the record that is to be written.
    while machine.store().load().newest != Some(0) {
        machine.change(Record::clone);
    }
    let boot_state = machine.partition("boot-state");
    boot_state.set_len(COPIES[1]).unwrap();
    systemd
        .state
        .lock()
        .unwrap()
        .units
        .insert("till.service".into(), "failed".into());
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(report["verdict"], "unhealthy", "{report:#}");
    service.wait_for_reboot(&machine, &systemd);
    // The loader counts what is left of its tries.
    assert_eq!(machine.record().b.status().name(), "trial");
    drop(service);
}

#[test]
fn a_machine_that_goes_down_gets_no_verdict() {
    let (machine, image, systemd) = on_trial("{deadline: 4s, settle: 2s}");
    {
        let mut state = systemd.state.lock().unwrap();
        state.units.insert("till.service".into(), "failed".into());
        state.system = "stopping".into();
    }
    let service = Service::start(&machine);
    service.wait_for_log(&machine, "no verdict, the machine is going down");
    let report = service.wait(&machine, |r| !r.is_null());
    assert!(report["verdict"].is_null(), "{report:#}");
    service.stop();
    assert_eq!(machine.record().b.status().name(), "trial");
    assert!(
        machine
            .store()
            .quarantine_entry(&image.digest())
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_bus_that_hangs_does_not_keep_the_gate_from_its_verdict() {
    let (machine, _, systemd) = on_trial("{deadline: 4s, settle: 2s}");
    drop(systemd);
    let socket = machine.root().join("run/systemd/private");
    std::fs::remove_file(&socket).unwrap();
    // Takes connections, never says a word.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let service = Service::start(&machine);
    service.wait(&machine, |r| r["phase"] == "going-back");
    assert_eq!(machine.record().b.status().name(), "given-up");
    drop((service, listener));
}

fn without_state(machine: &Fixture) {
    let path = machine.root().join("run/sternpost/boot.json");
    let mut facts: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    facts["state"] = serde_json::json!({
        "status": "degraded", "problem": "damaged", "reason": "mounting state: EIO",
    });
    std::fs::write(path, facts.to_string()).unwrap();
}

#[test]
fn a_slot_on_trial_that_cannot_use_the_state_is_left() {
    let (machine, _, systemd) = on_trial("{deadline: 40s, settle: 2s}");
    without_state(&machine);
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("mounting state: EIO"), "{report:#}");
    assert_eq!(machine.record().b.status().name(), "given-up");
    drop((service, systemd));
}

#[test]
fn a_good_slot_that_cannot_use_the_state_brings_nothing_up() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 40s, settle: 2s}");
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    without_state(&machine);
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["verdict"] == "unhealthy");
    assert_eq!(report["phase"], "degraded", "{report:#}");
    assert_eq!(report["brought_up"], false, "{report:#}");
    assert_eq!(machine.record().a.status().name(), "good");
    assert!(systemd.started().is_empty());
    drop(service);
}

#[test]
fn a_good_slot_says_that_state_is_its_own_and_an_older_one_brings_nothing_up_on_it() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 40s, settle: 2s}");
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    let owner = machine.root().join("state/sternpost/owner.json");
    let service = Service::start(&machine);
    service.wait(&machine, |_| owner.exists());
    service.stop();
    let text = std::fs::read_to_string(&owner).unwrap();
    assert!(text.contains("\"state_epoch\": 1"), "{text}");

    let newer = text.replace("\"state_epoch\": 1", "\"state_epoch\": 2");
    std::fs::write(&owner, &newer).unwrap();
    std::fs::remove_file(machine.root().join("run/sternpost/serve.json")).unwrap();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["verdict"] == "unhealthy");
    assert_eq!(report["phase"], "degraded", "{report:#}");
    assert_eq!(report["brought_up"], false, "{report:#}");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("state epoch 2"), "{reason}");
    assert_eq!(machine.record().a.status().name(), "good");
    assert_eq!(std::fs::read_to_string(&owner).unwrap(), newer);
    assert!(systemd.started().is_empty());
    drop(service);
}

#[test]
fn a_damaged_state_is_to_be_erased_only_if_the_profile_says_so() {
    for (said, erases) in [("", false), ("state: {on_damage: erase}\n", true)] {
        let machine = Fixture::new();
        let text =
            format!("version: 1\nhostname: edge-1\nhealth: {{deadline: 40s, settle: 2s}}\n{said}");
        std::fs::write(machine.root().join("usr/lib/sternpost/profile.yaml"), text).unwrap();
        let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
        without_state(&machine);
        let service = Service::start(&machine);
        service.wait(&machine, |r| r["verdict"] == "unhealthy");
        let says = |r: &Value| r["degraded"].to_string().contains("erased");
        if erases {
            service.wait(&machine, says);
        } else {
            // What it does about `state` is decided before it looks again.
            let looked = |r: &Value| r["findings"].as_array().is_some_and(|it| !it.is_empty());
            let report = service.wait(&machine, looked);
            assert!(!says(&report), "{report:#}");
        }
        drop((service, systemd));
    }
}

#[test]
fn an_installation_under_way_does_not_hold_the_start_up() {
    let machine = Fixture::new();
    profile(&machine, "{deadline: 40s, settle: 2s}");
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    let path = machine.root().join("run/sternpost/install.lock");
    let _lock = bootctl::os::lock::Lock::take(&path, "install x").unwrap();
    let notified = machine.root().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&notified).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut command = machine.command(&["serve"]);
    let service = Service(command.env("NOTIFY_SOCKET", &notified).spawn().unwrap());
    let mut text = [0; 256];
    while !text.starts_with(b"READY=1") {
        text.fill(0);
        socket.recv(&mut text).unwrap();
    }
    drop((service, systemd));
}

/// A machine whose profile has Kubernetes, and a service manager that cannot start its container runtime.
fn with_a_runtime_that_fails(machine: &Fixture) -> Systemd {
    let image = machine.root().join("usr/lib/sternpost/image.json");
    let text = std::fs::read_to_string(&image).unwrap();
    let kubernetes = r#""kubernetes":{"distribution":"kubeadm","version":"1.36.3"}"#;
    std::fs::write(&image, text.replace(r#""kubernetes":null"#, kubernetes)).unwrap();
    std::fs::write(
        machine.root().join("usr/lib/sternpost/profile.yaml"),
        "version: 1\nkubernetes: {distribution: kubeadm, role: init}\nhealth: {deadline: 60s}\n",
    )
    .unwrap();
    let id = machine.root().join("etc/machine-id");
    std::fs::create_dir_all(id.parent().unwrap()).unwrap();
    std::fs::write(id, "0123456789abcdef0123456789abcdef\n").unwrap();
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    let failing = vec!["containerd.service".into()];
    systemd.state.lock().unwrap().failing = failing;
    systemd
}

fn lane<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut lanes = report["lanes"].as_array().into_iter().flatten();
    lanes
        .find(|lane| lane["lane"] == name)
        .unwrap_or(&Value::Null)
}

#[test]
fn what_failed_in_a_good_slot_is_tried_until_it_comes_up() {
    let machine = Fixture::new();
    let systemd = with_a_runtime_that_fails(&machine);
    let service = Service::start(&machine);
    let runtime = "container runtime";
    let failed = |r: &Value| lane(r, runtime)["failed"] == true;
    let report = service.wait(&machine, |r| failed(r) && lane(r, "node")["step"].is_null());
    assert!(report["verdict"].is_null(), "{report:#}");
    assert_eq!(lane(&report, "node")["standing"], "waiting", "{report:#}");
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("bringing up container runtime, for "),
        "{status}"
    );
    assert!(status.contains("containerd.service"), "{status}");
    machine.run(&["health"]).code_is(1);
    // Whatever was wrong is mended.
    {
        let mut state = systemd.state.lock().unwrap();
        state.failing.clear();
        state.units.clear();
    }
    let report = service.wait(&machine, |r| r["brought_up"] == true);
    assert_eq!(
        systemd.started().last().map(String::as_str),
        Some("kubelet.service"),
        "{report:#}"
    );
    let status = machine.run(&["status"]).ok().out();
    assert!(
        status.contains("brought up: files, container runtime, control plane image, node"),
        "{status}"
    );
}

#[test]
fn what_failed_in_a_slot_on_trial_is_a_verdict_at_once() {
    let machine = Fixture::new();
    machine.upgrade();
    let _systemd = with_a_runtime_that_fails(&machine);
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| r["phase"] == "going-back");
    let reason = report["reason"].as_str().unwrap();
    assert!(reason.contains("containerd.service"), "{report:#}");
    assert!(!reason.contains("not well after"), "{report:#}");
}

/// Long after the verdict, health says what is now.
#[test]
fn health_is_now_and_the_verdict_is_history() {
    let machine = Fixture::new();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let says = |ok: bool, ago_seconds: u64| {
        let now_ms = bootctl::os::clock::since_boot().as_millis() as u64;
        let report = serde_json::json!({
            "version": 1, "boot_id": boot_id.trim(), "started_ms": 1, "phase": "healthy",
            "doing": null, "deadline_seconds": 40, "verdict": "healthy",
            "reason": "healthy 120 s after the service started", "verdict_ms": 2, "degraded": [],
            "findings": [{"name": "the API server is ready", "ok": ok, "why": (!ok).then_some("refused")}],
            "looked_ms": now_ms.saturating_sub(ago_seconds * 1000),
        });
        let path = machine.root().join("run/sternpost/serve.json");
        std::fs::write(path, report.to_string()).unwrap();
    };
    says(true, 5);
    let out = machine.run(&["health"]).ok().out();
    assert!(out.starts_with("healthy\n"), "{out}");
    says(false, 5);
    let out = machine.run(&["health"]).code_is(1).out();
    assert!(
        out.starts_with("not well now: the API server is ready: refused"),
        "{out}"
    );
    assert!(
        out.contains("verdict of this start: healthy 120 s"),
        "{out}"
    );
    let status = machine.run(&["status"]).ok().out();
    assert!(status.contains("! not well now: "), "{status}");
}
