//! Recovery: replaced while nothing needs it, and reached as the machine was when it was last well.

use std::fs;

use block_file::{Access, BlockFile};
use boot_core::floor::Level;
use boot_core::manifest::Kind;
use boot_core::select::RECOVERY_STREAK;
use boot_core::store::BootState;
use boot_core::test_support::MemoryDevice;
use boot_core::verify::would_start;
use boot_core::{Nonce, SecurityVersion, Slot, Target, transition};
use bootctl::boot::admission::Admission;
use bootctl::boot::control::{Context, Control};
use bootctl::install::replace_recovery;
use bootctl::progress::Progress;

use crate::fixture::{Fixture, Image, trust};
use crate::interrupted::{Bytes, Failing};
use crate::repair::flip;
use crate::serve::Service;
use crate::server::{Behaviour, Server};
use crate::systemd::Systemd;

/// Version 1.0 runs from slot A, 2.0 is in slot B; both are good.
pub(crate) fn both_good() -> Fixture {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", &file]).ok();
    machine.change(|r| {
        let r = transition::activate(r, Slot::B, Target::A).unwrap();
        let r = transition::start(&r, Target::B, Nonce([5; 16])).unwrap();
        transition::mark_good(&r, Slot::B, &image.digest(), Target::B).unwrap()
    });
    machine
}

fn found(machine: &Fixture) -> Option<boot_core::Digest> {
    let mut device = BlockFile::open(&machine.path("boot-r"), Access::Read).unwrap();
    would_start(&mut device, Target::Recovery, &trust(), &machine.record())
        .ok()
        .map(|verified| verified.digest)
}

#[test]
fn recovery_is_replaced_while_both_slots_are_good() {
    let machine = both_good();
    let slots = ["boot-a", "root-a", "boot-b", "root-b"];
    let before = slots.map(|label| fs::read(machine.path(label)).unwrap());
    for version in ["7.0", "8.0"] {
        let image = Image::recovery(version);
        let file = machine.file("recovery.spb", &image.bundle());
        let said = machine
            .run(&["update-recovery", &file, "--json"])
            .ok()
            .json();
        assert_eq!(said["recovery"]["version"], version);
        assert_eq!(found(&machine), Some(image.digest()));
        let again = machine
            .run(&["update-recovery", &file, "--json"])
            .ok()
            .json();
        assert_eq!(again["recovery"]["was_there"], true);
    }
    assert!(slots.map(|label| fs::read(machine.path(label)).unwrap()) == before);
    let history = machine.run(&["history"]).ok().out();
    assert!(history.contains("recovery-replaced"), "{history}");
    machine.run(&["reboot", "--recovery"]).ok();
}

#[test]
fn recovery_has_a_floor_of_its_own() {
    let machine = both_good();
    let image = Image::recovery("7.0");
    let file = machine.file("recovery.spb", &image.bundle());
    machine.run(&["update-recovery", &file]).ok();
    machine.change(|r| {
        let mut r = r.clone();
        r.floors.system.security_version = SecurityVersion(9);
        r
    });
    assert_eq!(found(&machine), Some(image.digest()));
    machine.change(|r| {
        let mut r = r.clone();
        r.floors.recovery.security_version = SecurityVersion(9);
        r
    });
    assert_eq!(found(&machine), None);
}

/// While both slots are good, nothing falls back to an older recovery.
#[test]
fn recoverys_floor_rises_to_the_one_that_was_put_in_place() {
    let machine = both_good();
    let file = machine.file("recovery.spb", &Image::recovery("7.0").bundle());
    let level = Level::new(1, 2);
    for _ in 0..2 {
        machine.run(&["update-recovery", &file]).ok();
        let floors = machine.record().floors;
        assert_eq!((floors.system, floors.recovery), (Level::default(), level));
        // As where the power goes before that commit: the next run makes good for it.
        machine.change(|r| {
            let mut r = r.clone();
            r.floors.recovery = Level::default();
            r
        });
    }
    machine.run(&["update-recovery", &file]).ok();
    let history = machine.run(&["history"]).ok().out();
    let text = "from 0 (keyring 0) to 1 (keyring 2)";
    assert!(history.contains(text), "{history}");
    let mut old = Image::recovery("8.0");
    old.manifest.security_version = SecurityVersion(0);
    let old = machine.file("old.spb", &old.bundle());
    machine
        .run(&["update-recovery", &old])
        .fails(4, &["security version 0 is below the floor 1"]);
}

#[test]
fn what_is_not_meant_for_it_or_needs_it_leaves_recovery_alone() {
    let machine = both_good();
    let image = Image::recovery("7.0");
    let file = machine.file("recovery.spb", &image.bundle());
    machine.run(&["update-recovery", &file]).ok();
    let newer = machine.file("newer.spb", &Image::recovery("8.0").bundle());
    let system = machine.file("system.spb", &Image::new("3.0").bundle());
    machine
        .run(&["update-recovery", &system])
        .fails(4, &["its kind is system, expected recovery"]);
    machine.run(&["install", &newer]).fails(
        4,
        &["its kind is recovery, expected system", "update-recovery"],
    );
    for kind in [Kind::Content, Kind::Extension, Kind::Installer] {
        let other = Image::small("8.0").of_kind(kind).bundle();
        let said = format!("its kind is {kind}, expected recovery");
        machine
            .run(&["update-recovery", &machine.file("other.spb", &other)])
            .fails(4, &[&said, "this version of bootctl cannot"]);
    }
    let mut forged = Image::recovery("8.0");
    forged.signing_key = 9;
    let forged = machine.file("forged.spb", &forged.bundle());
    machine
        .run(&["update-recovery", &forged])
        .fails(4, &["signed"]);
    let mut old = Image::recovery("8.0");
    old.serial = 1;
    let old = machine.file("old.spb", &old.bundle());
    machine
        .run(&["update-recovery", &old])
        .fails(4, &["serial 1, below the floor 2"]);
    let boot = machine.partition("boot-b");
    std::os::unix::fs::FileExt::write_all_at(&boot, &[1], (1 << 20) + 77).unwrap();
    machine
        .run(&["update-recovery", &newer])
        .fails(3, &["slot B does not verify", "nothing was changed"]);
    machine.change(|r| transition::give_up(r, Slot::B, &r.b.digest.clone()).unwrap());
    machine
        .run(&["update-recovery", &newer])
        .fails(3, &["slot B is given-up", "nothing was changed"]);
    machine.boots(Target::Recovery, &Image::new("1.0"));
    machine
        .run(&["update-recovery", &newer])
        .fails(3, &["the recovery system is running"]);
    assert_eq!(found(&machine), Some(image.digest()));
}

/// The power goes at each write and flush: there is no recovery, or a whole one, and the same command goes on.
#[test]
fn whichever_write_is_the_last_there_is_no_half_of_a_recovery() {
    let (old, new) = (Image::recovery("7.0"), Image::recovery("8.0"));
    let system = Image::small("1.0");
    let mut ended_early = 0;
    for operations in 0.. {
        let left = Failing::counter();
        let device = |size| Failing::new(MemoryDevice::new(size, 512), &left);
        let (mut state, mut target) = (device(4 << 20), device(2 << 20));
        let [mut a, mut b] = [device(2 << 20), device(2 << 20)];
        let contents = system.contents();
        let record = transition::first_image(contents);
        let record = transition::mark_good(&record, Slot::A, &contents.digest, Target::A).unwrap();
        let record = transition::stage(&record, Slot::B, contents, Target::A).unwrap();
        let record = transition::mark_good(&record, Slot::B, &contents.digest, Target::B).unwrap();
        BootState::new(&mut state).commit(&record).unwrap();
        system.write_boot(Target::A, &mut a);
        system.write_boot(Target::B, &mut b);
        old.write_boot(Target::Recovery, &mut target);
        let context = Context {
            booted: Target::A,
            nonce: Nonce::ZERO,
            now: || 1_800_000_000,
        };
        let admission = Admission::from(trust());
        let mut replace = |target: &mut Failing| {
            replace_recovery::replace(
                &mut Control::new(&mut state, context),
                &mut &mut *target,
                [&mut &mut a, &mut &mut b],
                &mut Bytes(new.bundle()),
                &admission,
                &Progress::silent(),
            )
        };
        left.set(operations);
        let ended = replace(&mut target);
        left.set(usize::MAX);
        match would_start(&mut target, Target::Recovery, &admission, &record) {
            Ok(found) if found.digest == old.digest() => assert!(ended.is_err()),
            Ok(found) => assert_eq!(found.digest, new.digest()),
            Err(_) => assert!(ended.is_err()),
        }
        if ended.is_ok() {
            break;
        }
        ended_early += 1;
        replace(&mut target).unwrap();
        let found = would_start(&mut target, Target::Recovery, &admission, &record).unwrap();
        assert_eq!(found.digest, new.digest());
    }
    assert!(ended_early >= 4, "only {ended_early} writes");
}

const KUBERNETES: &str = "version: 1
hostname: site-7
network:
  interfaces:
    - match: {name: en*}
      addresses: [192.0.2.10/24]
users:
  - name: ann
    admin: true
    ssh_keys:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdTj+FV7RZMRCKMEawsHaNqZqXmRPfBut6SAqv/L3+7 ann@example
kubernetes:
  distribution: kubeadm
  role: init
health:
  deadline: 20m
";

#[test]
fn recovery_takes_from_a_profile_what_makes_a_machine_reachable() {
    let machine = Fixture::new();
    fs::remove_file(machine.root().join("usr/lib/sternpost/profile.yaml")).unwrap();
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let state = |name: &str| machine.root().join("state/sternpost").join(name);
    let apply = || machine.run(&["profile", "apply"]).ok().out();
    let hostname = || fs::read_to_string(machine.root().join("etc/hostname")).unwrap();
    let networks = || -> String {
        let files = fs::read_dir(machine.root().join("etc/systemd/network")).unwrap();
        let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        texts.collect()
    };
    apply();
    assert!(hostname().starts_with("node-"), "{}", hostname());
    // The machine's own, which names a distribution that recovery does not have.
    fs::write(state("profile.yaml"), KUBERNETES).unwrap();
    apply();
    assert_eq!(hostname(), "site-7\n");
    assert!(
        networks().contains("Address=192.0.2.10/24"),
        "{}",
        networks()
    );
    let keys = machine.root().join("etc/ssh/authorized_keys.d/ann");
    assert!(
        fs::read_to_string(keys)
            .unwrap()
            .starts_with("ssh-ed25519 ")
    );
    assert!(!machine.root().join("etc/sternpost/kubernetes").exists());
    // What the machine was last well with comes first, unless it cannot be read.
    let last_well = KUBERNETES.replace("site-7", "site-6");
    let last_well = last_well.replace("192.0.2.10", "192.0.2.11");
    fs::write(state("good-profile.yaml"), &last_well).unwrap();
    apply();
    assert_eq!(hostname(), "site-6\n");
    assert!(
        networks().contains("Address=192.0.2.11/24"),
        "{}",
        networks()
    );
    fs::write(state("good-profile.yaml"), "hostname: [\n").unwrap();
    let said = apply();
    assert!(said.contains("good-profile.yaml is not in force"), "{said}");
    assert_eq!(hostname(), "site-7\n");
    // In a slot it is the machine's own that counts.
    fs::write(state("good-profile.yaml"), &last_well).unwrap();
    fs::write(state("profile.yaml"), "version: 1\nhostname: site-8\n").unwrap();
    machine.boots(Target::A, &Image::new("1.0"));
    apply();
    assert_eq!(hostname(), "site-8\n");
}

#[test]
fn recovery_takes_what_it_knows_of_a_profile_that_is_newer() {
    let machine = Fixture::new();
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let state = |name: &str| machine.root().join("state/sternpost").join(name);
    let newer = KUBERNETES.replace("version: 1\n", "version: 1\nwifi: {psk: hunter2}\n");
    let newer = newer.replace("admin: true", "admin: true\n    shell: /bin/zsh");
    fs::write(state("good-profile.yaml"), &newer).unwrap();
    let said = machine.run(&["profile", "apply"]).ok().out();
    assert!(said.contains("good-profile.yaml is in force"), "{said}");
    let hostname = || fs::read_to_string(machine.root().join("etc/hostname")).unwrap();
    assert_eq!(hostname(), "site-7\n");
    let keys = machine.root().join("etc/ssh/authorized_keys.d/ann");
    assert!(keys.exists());
    let status = machine.run(&["status", "--json"]).ok().json();
    let left_out = status["profile"]["left_out"].as_array().unwrap();
    let messages: Vec<_> = left_out
        .iter()
        .map(|it| it["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            "a profile has no field `wifi`",
            "each entry of `users` has no field `shell`"
        ]
    );
    assert_eq!(status["profile"]["problem"], serde_json::Value::Null);
    let text = machine.run(&["status"]).ok().out();
    assert!(
        text.contains("good-profile.yaml:2:1: left out: a profile has no field `wifi`"),
        "{text}"
    );
    assert!(text.contains("recovery leaves out 2 of"), "{text}");
    let shown = machine.run(&["profile", "show"]).ok().out();
    assert!(!shown.contains("hunter2"), "{shown}");
    // A slot takes none of it.
    fs::rename(state("good-profile.yaml"), state("profile.yaml")).unwrap();
    machine.boots(Target::A, &Image::new("1.0"));
    let said = machine.run(&["profile", "apply"]).ok().out();
    assert!(said.contains("profile.yaml is not in force"), "{said}");
}

/// Recovery came up by itself, and the profile that a good slot last ran with says what to install. Slot A is called good.
fn left_alone_with(url: &str) -> (Fixture, Systemd) {
    let machine = Fixture::new();
    let systemd = leave_alone(&machine, url);
    (machine, systemd)
}

fn leave_alone(machine: &Fixture, url: &str) -> Systemd {
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let profile = format!("version: 1\nhostname: edge-1\nrecovery: {{install: \"{url}\"}}\n");
    let path = machine.root().join("state/sternpost/good-profile.yaml");
    std::fs::write(path, profile).unwrap();
    Systemd::listen(&machine.root().join("run/systemd/private"))
}

#[test]
fn left_alone_recovery_installs_what_the_profile_names() {
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    flip(&machine, "root-a", 70_000);
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    // A stays as it is: B is of less use.
    machine.assert_holds(&image, "trial");
    assert_eq!(machine.record().a.status().name(), "good");
    drop(service);
}

/// The plug was pulled ten times while it started, say.
#[test]
fn left_alone_recovery_installs_nothing_beside_a_slot_that_is_whole() {
    let server = Server::new(Image::new("2.0").bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    let before = machine.record();
    let service = Service::start(&machine);
    service.wait(&machine, |_| {
        service.log(&machine).contains("slot A is whole, and http")
    });
    let after = machine.record();
    assert_eq!((after.a, after.b), (before.a, before.b));
    assert!(systemd.started().is_empty());
    drop(service);
}

/// A is whole and has not come up in ten starts: it stays, and what is installed goes beside it, over what was never good.
#[test]
fn left_alone_recovery_installs_beside_a_good_slot_that_never_comes_up() {
    let image = Image::new("3.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    let unproven = machine.file("bundle.spb", &Image::new("2.0").bundle());
    machine.run(&["install", "--slot", "b", &unproven]).ok();
    machine.change(|r| {
        let mut r = transition::activate(r, Slot::B, Target::Recovery).unwrap();
        r.b.tries = 0;
        r.a.failure_streak = RECOVERY_STREAK;
        r
    });
    let before = machine.record();
    assert_eq!(before.b.status().name(), "unproven");
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    machine.assert_holds(&image, "trial");
    let after = machine.record();
    assert_eq!((after.a, after.b.status().name()), (before.a, "trial"));
    drop(service);
}

#[test]
fn left_alone_recovery_writes_neither_of_two_good_slots_that_never_come_up() {
    let server = Server::new(Image::new("3.0").bundle(), &[Behaviour::Ranges]);
    let machine = both_good();
    let systemd = leave_alone(&machine, &server.url);
    machine.change(|r| {
        let mut r = r.clone();
        (r.a.failure_streak, r.b.failure_streak) = (RECOVERY_STREAK, RECOVERY_STREAK);
        r
    });
    let before = machine.record();
    let service = Service::start(&machine);
    service.wait(&machine, |_| {
        service.log(&machine).contains("is whole, and http")
    });
    let after = machine.record();
    assert_eq!((after.a, after.b), (before.a, before.b));
    assert!(systemd.started().is_empty());
    drop(service);
}

/// As the profile says, and to no end: the third time there has to be another image.
#[test]
fn left_alone_recovery_installs_the_same_image_twice_and_no_more() {
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    machine.change(|r| {
        let mut r = r.clone();
        r.a.failure_streak = RECOVERY_STREAK;
        r
    });
    for _ in 0..2 {
        let service = Service::start(&machine);
        service.wait_for_reboot(&machine, &systemd);
        machine.assert_holds(&image, "trial");
        drop(service);
        systemd.state.lock().unwrap().started.clear();
        // Its tries are used up, and nothing was heard of it.
        machine.change(|r| {
            let mut r = r.clone();
            r.b.tries = 0;
            r
        });
    }
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| {
        r["degraded"].to_string().contains("by itself")
    });
    let said = report["degraded"].to_string();
    assert!(said.contains("by recovery more than once"), "{said}");
    assert_eq!(machine.record().b.status().name(), "unproven");
    assert!(systemd.started().is_empty());
    drop(service);
}

/// The loader's last resort would start A once more.
#[test]
fn left_alone_recovery_writes_no_slot_that_is_whole_beside_one_that_is_not() {
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", "--slot", "b", &file]).ok();
    machine.change(|r| {
        let mut r = transition::mark_good(r, Slot::B, &image.digest(), Target::B).unwrap();
        r.a.successful = false;
        r.a.tries = 0;
        r
    });
    let before = machine.record();
    assert_eq!(before.a.status().name(), "unproven");
    flip(&machine, "boot-b", (1 << 20) + 77);
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    machine.assert_holds(&image, "trial");
    let after = machine.record();
    assert_eq!(after.a.status().name(), "unproven");
    assert_eq!(after.a.digest, before.a.digest);
    drop(service);
}

/// A is refused: by its UKI it is the last one that starts.
#[test]
fn left_alone_recovery_writes_the_other_slot_where_a_rule_keeps_it_from_one() {
    let image = Image::new("3.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let machine = both_good();
    let systemd = leave_alone(&machine, &server.url);
    flip(&machine, "root-a", 70_000);
    flip(&machine, "boot-b", (1 << 20) + 77);
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    machine.assert_holds(&image, "trial");
    assert_eq!(machine.record().a.status().name(), "good");
    drop(service);
}

#[test]
fn left_alone_recovery_writes_the_other_slot_where_the_disk_keeps_it_from_one() {
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&server.url);
    flip(&machine, "root-a", 70_000);
    // B's root is gone.
    std::fs::remove_file(machine.path("root-b")).unwrap();
    let service = Service::start(&machine);
    service.wait_for_reboot(&machine, &systemd);
    let after = machine.record();
    assert_eq!(after.a.status().name(), "trial");
    assert_eq!(after.a.digest, image.digest());
    drop(service);
}

#[test]
fn what_recovery_could_not_install_by_itself_is_said_and_changes_nothing() {
    let mut forged = Image::new("2.0");
    forged.signing_key = 9;
    let server = Server::new(forged.bundle(), &[Behaviour::Ranges]);
    let (machine, systemd) = left_alone_with(&format!("{}?token=secret", server.url));
    flip(&machine, "boot-a", (1 << 20) + 77);
    let before = machine.record();
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| {
        r["degraded"].to_string().contains("by itself")
    });
    let said = report["degraded"].to_string();
    assert!(!said.contains("secret"), "{said}");
    let status = machine.run(&["status"]).out();
    assert!(status.contains("by itself"), "{status}");
    // The service has written the other copy of the record, which is all that is new.
    let after = machine.record();
    assert_eq!((after.a, after.b), (before.a, before.b));
    assert!(systemd.started().is_empty());
    drop(service);
}
