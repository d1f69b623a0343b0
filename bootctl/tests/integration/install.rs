//! `bootctl install`: what goes in, what is refused, and that nothing is lost.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;

use boot_core::floor::STEP;
use boot_core::{KeyringSerial, SecurityVersion, Slot, Target, transition};

use crate::fixture::{Fixture, Image};
use crate::recovery::both_good;
use crate::repair::flip;

#[test]
fn a_bundle_in_a_file_is_written_verified_and_staged() {
    let machine = Fixture::new();
    let before = machine.untouchable();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    let ran = machine.run(&["install", &file]).ok();
    assert!(
        ran.out().contains("version 2.0 is in slot B"),
        "{}",
        ran.out()
    );
    machine.assert_holds(&image, "staged");
    assert!(before == machine.untouchable());
    assert_eq!(machine.record().a.status().name(), "good");

    let again = machine.run(&["install", &file, "--json"]).ok().json();
    assert_eq!(again["installed"]["was_there"], true);
    machine.run(&["activate"]).ok();
    machine.assert_holds(&image, "trial");
}

#[test]
fn blocks_that_the_machine_has_are_not_fetched() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    let ran = machine
        .run(&["install", "--now", &file, "--json"])
        .ok()
        .json();
    // The first chunk of the root is that of 1.0, the second is zero.
    let fetched = ran["installed"]["fetched"].as_u64().unwrap();
    assert!(fetched < 200 * 1024, "{fetched} bytes were fetched");
    assert_eq!(ran["rebooting"], true);
    machine.assert_holds(&image, "trial");
}

#[test]
fn a_pipe_works_too() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let mut child = machine
        .command(&["install", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&image.bundle())
        .unwrap();
    assert!(child.wait().unwrap().success());
    machine.assert_holds(&image, "staged");
}

/// Runs an installation that must be refused before anything is written.
fn refused(machine: &Fixture, bundle: &[u8], code: i32, says: &[&str]) {
    let before = (machine.untouchable(), machine.record());
    let slot_b = std::fs::read(machine.path("root-b")).unwrap();
    let file = machine.file("bad.spb", bundle);
    machine.run(&["install", &file]).fails(code, says);
    assert!((machine.untouchable(), machine.record()) == before);
    assert!(std::fs::read(machine.path("root-b")).unwrap() == slot_b);
}

#[test]
fn foreign_and_hostile_bundles_change_nothing() {
    let machine = Fixture::new();
    let good = Image::new("2.0");
    let mut bundle = good.bundle();

    refused(&machine, b"", 5, &["ends after 0 bytes"]);
    for foreign in [&[0; 4096][..], b"a note\n", b"SPBOUND"] {
        refused(&machine, foreign, 4, &["not a Sternpost bundle"]);
    }
    refused(&machine, &bundle[..500], 5, &["ends after 500 bytes"]);
    refused(&machine, &bundle[..5000], 5, &["cut short"]);
    refused(&machine, &bundle[..bundle.len() - 1], 5, &["cut short"]);
    bundle.push(0);
    refused(&machine, &bundle, 5, &["longer than it should be"]);

    let mut header = good.bundle();
    header[20] ^= 1;
    refused(&machine, &header, 4, &["header is damaged"]);
    let mut manifest = good.bundle();
    manifest[200] ^= 1;
    refused(&machine, &manifest, 4, &[]);

    let wrong = |change: &dyn Fn(&mut Image)| {
        let mut image = good.clone();
        change(&mut image);
        image.bundle()
    };
    refused(&machine, &wrong(&|i| i.signing_key = 9), 4, &["signed"]);
    refused(
        &machine,
        &wrong(&|i| i.manifest.product = "other".into()),
        4,
        &["other", "demo"],
    );
    refused(
        &machine,
        &wrong(&|i| i.manifest.architecture = boot_core::Architecture::Aarch64),
        4,
        &["aarch64", "x86_64"],
    );
    refused(
        &machine,
        &wrong(&|i| i.manifest.layout = "ab-2".into()),
        4,
        &["ab-2", "ab-1"],
    );
    refused(
        &machine,
        &wrong(&|i| i.manifest.expires = Some(1_000_000)),
        4,
        &["expired on 1970-01-12"],
    );
    refused(
        &machine,
        &wrong(&|i| i.manifest.format = 2),
        4,
        &["format 2"],
    );
    refused(
        &machine,
        &wrong(&|i| {
            i.root.resize(17 << 20, 0);
            i.seal();
        }),
        6,
        &["root needs", "bytes in the slot"],
    );
    refused(
        &machine,
        &wrong(&|i| {
            i.uki.resize(4 << 20, 0);
            i.seal();
        }),
        6,
        &["UKI needs"],
    );
}

#[test]
fn leaves_that_are_not_those_of_the_signed_root_change_nothing() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let bundle = image.bundle();
    let mut bytes = [0; 64];
    bytes.copy_from_slice(&bundle[..64]);
    let header = boot_core::bundle::Header::decode(&bytes).unwrap();
    let mut flipped = bundle;
    flipped[header.leaves_offset() as usize + 77] ^= 4;
    refused(&machine, &flipped, 4, &["verity leaves"]);
}

#[test]
fn below_the_floor_is_refused() {
    let machine = Fixture::new();
    machine.change(|r| {
        let mut r = r.clone();
        r.floors.system.security_version = SecurityVersion(5);
        r
    });
    refused(
        &machine,
        &Image::new("2.0").bundle(),
        4,
        &["below the floor 5"],
    );
}

#[test]
fn what_would_drive_up_a_floor_is_refused() {
    let machine = Fixture::new();
    for version in [STEP + 1, u64::MAX] {
        let mut image = Image::new("2.0");
        image.manifest.security_version = SecurityVersion(version);
        let words = [
            "more than 4294967296 above the floor 0",
            "drive up the floor",
        ];
        refused(&machine, &image.bundle(), 4, &words);
    }
    let mut image = Image::new("2.0");
    image.serial = STEP + 1;
    let words = ["more than 4294967296 above the floor 0"];
    refused(&machine, &image.bundle(), 4, &words);
}

/// Firmware's floors are not the record's: what is below them would be installed, and burn its tries.
#[test]
fn what_the_loader_would_refuse_is_refused() {
    let machine = Fixture::new();
    let path = machine.root().join("run/sternpost/handover.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let said = |more: &str| {
        let text = text.trim_end().strip_suffix('}').unwrap();
        std::fs::write(&path, format!("{text},{more}}}")).unwrap();
    };
    said(
        r#""floors":{"system":{"security_version":5,"keyring_serial":0},"recovery":{"security_version":0,"keyring_serial":0}}"#,
    );
    let words = ["below the floor 5", "install a newer one"];
    refused(&machine, &Image::new("2.0").bundle(), 4, &words);
    said(&format!(r#""trust":"{}""#, "ab".repeat(32)));
    let words = ["another root of trust", "restart the machine"];
    refused(&machine, &Image::new("2.0").bundle(), 3, &words);
}

#[test]
fn below_the_keyring_floor_is_refused() {
    let machine = Fixture::new();
    machine.change(|r| {
        let mut r = r.clone();
        r.floors.system.keyring_serial = KeyringSerial(3);
        r
    });
    let words = ["serial 2, below the floor 3", "under the newer keyring"];
    refused(&machine, &Image::new("2.0").bundle(), 4, &words);
}

#[test]
fn a_damaged_frame_is_not_written_and_the_rest_is_kept() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let mut bundle = image.bundle();
    let last = bundle.len() - 50;
    bundle[last] ^= 1;
    let file = machine.file("bundle.spb", &bundle);
    machine
        .run(&["install", &file])
        .fails(4, &["frame 3", "not what was signed"]);
    let record = machine.record();
    assert_eq!(record.b.status().name(), "empty");
    assert_eq!(record.a.status().name(), "good");
    let history = machine.run(&["history", "--json"]).ok().json();
    assert_eq!(
        history["events"].as_array().unwrap().last().unwrap()["kind"],
        "install-failed"
    );

    let file = machine.file("bundle.spb", &image.bundle());
    let ran = machine.run(&["install", &file, "--json"]).ok().json();
    assert!(ran["installed"]["fetched"].as_u64().unwrap() < 70 * 1024);
    machine.assert_holds(&image, "staged");
}

#[test]
fn a_slot_on_trial_may_not_overwrite_what_it_falls_back_to() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", "--now", &file]).ok();
    machine.boots(Target::B, &image);
    let next = machine.file("next.spb", &Image::new("3.0").bundle());
    machine
        .run(&["install", &next])
        .fails(3, &["slot A can still start", "mark-good"]);
    machine.run(&["mark-good"]).ok();
    machine.run(&["install", &next]).ok();
}

#[test]
fn quarantine_is_kept_unless_forced() {
    let machine = Fixture::new();
    let image = Image::new("3.0");
    machine
        .store()
        .quarantine(&image.digest(), "node not Ready", 1)
        .unwrap();
    let bundle = image.bundle();
    refused(
        &machine,
        &bundle,
        3,
        &["in quarantine: node not Ready", "--force"],
    );
    let file = machine.file("bundle.spb", &bundle);
    machine.run(&["install", "--force", &file]).ok();
    assert!(machine.store().quarantined().unwrap().is_empty());
    machine.assert_holds(&image, "staged");
}

#[test]
fn what_runs_already_is_not_written_over_what_could_be_gone_back_to() {
    let machine = Fixture::new();
    let (_, file) = machine.upgrade();
    machine.run(&["mark-good"]).ok();
    let before = machine.record();
    let refused = machine.run(&["install", "--now", &file]).code_is(3).err();
    assert!(
        refused.contains("version 2.0 runs already, in slot B"),
        "{refused}"
    );
    assert_eq!(machine.record(), before);
    assert!(machine.record().a.is_good());
    machine.run(&["install", "--force", &file]).ok();
    assert_eq!(machine.record().a.status().name(), "staged");
}

#[test]
fn a_second_one_is_refused_and_says_who_holds_the_lock() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let mut first = machine
        .command(&["install", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lock = machine.root().join("run/sternpost/install.lock");
    while !std::fs::read_to_string(&lock).is_ok_and(|t| !t.is_empty()) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let file = machine.file("bundle.spb", &image.bundle());
    let says = format!("bootctl install - (process {})", first.id());
    machine.run(&["install", &file]).fails(7, &[&says]);
    first
        .stdin
        .take()
        .unwrap()
        .write_all(&image.bundle())
        .unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn killed_in_the_middle_it_goes_on_when_run_again() {
    let machine = Fixture::new();
    let mut image = Image::new("2.0");
    image.root = crate::fixture::noise(99, 9 << 20);
    image.seal();
    let bundle = image.bundle();
    let mut child = machine
        .command(&["install", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Everything but the last chunk, then the plug is pulled once that is in place.
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&bundle[..bundle.len() - 1000])
        .unwrap();
    let root = machine.partition("root-b");
    let mut found = vec![0; 4096];
    while found != image.root[(8 << 20) - 4096..8 << 20] {
        std::thread::sleep(std::time::Duration::from_millis(20));
        root.read_exact_at(&mut found, (8 << 20) - 4096).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(machine.record().b.status().name(), "empty");
    assert_eq!(machine.record().a.status().name(), "good");
    let file = machine.file("bundle.spb", &bundle);
    let ran = machine.run(&["install", &file, "--json"]).ok().json();
    let fetched = ran["installed"]["fetched"].as_u64().unwrap();
    assert!(fetched < 1100 * 1024, "{fetched}");
    machine.assert_holds(&image, "staged");
}

#[test]
fn recovery_installs_into_any_slot() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.boots(Target::Recovery, &image);
    machine
        .run(&["install", &file])
        .fails(2, &["no slot was named", "--slot"]);
    // A is the last good slot: it is not overwritten, whoever asks.
    machine
        .run(&["install", "--slot", "a", &file])
        .fails(3, &["slot A can still start"]);
    machine.change(|r| {
        let digest = r.a.digest;
        transition::give_up(r, Slot::A, &digest).unwrap()
    });
    machine
        .run(&["install", "--slot", "a", "--now", &file])
        .ok();
    assert_eq!(machine.record().a.digest, image.digest());
    assert_eq!(machine.record().a.status().name(), "trial");
}

/// What was asked for wrongly is said first, whatever else does not work.
#[test]
fn recovery_without_its_disk_says_what_is_wrong_with_the_command() {
    let machine = Fixture::new();
    machine.boots(Target::Recovery, &Image::new("1.0"));
    machine.loses_its_disk();
    for command in ["activate", "repair-slot", "give-up"] {
        machine.run(&[command]).fails(2, &["no slot was named"]);
    }
    for command in ["rollback", "mark-good"] {
        machine
            .run(&[command])
            .fails(3, &["the recovery system is running"]);
    }
    machine
        .run(&["update-loader", "loader.spb"])
        .fails(3, &["the recovery system is running"]);
    machine
        .run(&["activate", "--slot", "a"])
        .fails(1, &["the disk was not found"]);
}

#[test]
fn contradicting_facts_and_missing_partitions_are_refused() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let file = machine.file("bundle.spb", &image.bundle());
    std::fs::remove_file(machine.path("root-b")).unwrap();
    machine
        .run(&["install", &file])
        .fails(1, &["opening root-b"]);
    let handover = machine.root().join("run/sternpost/handover.json");
    let text = std::fs::read_to_string(&handover).unwrap();
    std::fs::write(&handover, text.replace("\"slot\":\"a\"", "\"slot\":\"b\"")).unwrap();
    machine
        .run(&["install", &file])
        .fails(3, &["the loader handed over"]);
    std::fs::remove_file(machine.root().join("run/sternpost/boot.json")).unwrap();
    machine
        .run(&["install", &file])
        .fails(8, &["Sternpost did not start this machine"]);
}

#[test]
fn a_bundle_under_an_older_keyring_is_refused() {
    let machine = Fixture::new();
    let mut image = Image::new("2.0");
    let before = machine.record();
    image.serial = 1;
    let file = machine.file("bundle.spb", &image.bundle());
    machine
        .run(&["install", &file])
        .fails(4, &["keyring has serial 1, this machine's has 2"]);
    assert_eq!(machine.record(), before);
    image.serial = 3;
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", &file]).ok();
    machine.assert_holds(&image, "staged");
}

/// Nobody may be there who would notice.
#[test]
fn in_recovery_too_a_bundle_under_an_older_keyring_is_refused() {
    let machine = Fixture::new();
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let mut image = Image::new("2.0");
    image.serial = 1;
    let file = machine.file("bundle.spb", &image.bundle());
    let install = ["install", "--slot", "b", &file];
    machine
        .run(&install)
        .fails(4, &["keyring has serial 1, this machine's has 2"]);
    // A slot that no longer verifies says nothing.
    let boot = machine.partition("boot-a");
    std::os::unix::fs::FileExt::write_all_at(&boot, &[0; 512], 0).unwrap();
    machine.run(&install).ok();
}

#[test]
fn recovery_does_not_overwrite_the_last_slot_that_verifies() {
    let machine = Fixture::new();
    let running = Image::new("1.0");
    let (_, file) = machine.upgrade();
    machine.run(&["mark-good"]).ok();
    machine.boots(Target::Recovery, &running);
    // A is good by the record, but its UKI has lost a bit.
    let boot = machine.partition("boot-a");
    std::os::unix::fs::FileExt::write_all_at(&boot, &[1], (1 << 20) + 77).unwrap();
    let before = machine.record();
    machine
        .run(&["install", "--slot", "b", &file])
        .fails(3, &["slot B is the last one that starts", "--slot a"]);
    assert_eq!(machine.record(), before);
    machine.run(&["install", "--slot", "a", &file]).ok();
}

/// It runs; that its disk has rotted since is for the root check and the loader.
#[test]
fn a_good_slot_is_written_beside_one_that_runs_and_has_rotted() {
    let machine = both_good();
    flip(&machine, "boot-a", (1 << 20) + 77);
    let image = Image::new("3.0");
    let file = machine.file("bundle.spb", &image.bundle());
    machine.run(&["install", &file]).ok();
    machine.assert_holds(&image, "staged");
}
