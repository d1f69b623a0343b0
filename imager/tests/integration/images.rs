//! Disk images and bundles.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use boot_core::record::SlotStatus;
use imager::build::outputs;
use imager::inspect::Report;
use imager::inspect::verify::{Authority, Check, verify};
use imager::output::gpt;
use imager::release::authority::read_root;

use crate::support::Fixture;

fn authority(fixture: &Fixture) -> Authority {
    Authority::Root(read_root(&fixture.path("keys")).unwrap())
}

fn failures(path: &Path, authority: &Authority) -> Vec<Check> {
    let checks = verify(path, authority).unwrap();
    checks
        .checks
        .into_iter()
        .filter(|check| !check.good)
        .collect()
}

/// Flips one bit at `offset` within a partition.
fn flip(path: &Path, label: &str, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let (_, table) = gpt::open(path).unwrap();
    let at = table.find(label).unwrap().start + offset;
    flip_at(&file, at);
}

fn flip_at(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn a_disk_is_whole_at_either_sector_size() {
    let fixture = Fixture::new();
    for sector_size in [512, 4096] {
        let path = fixture.disk("disk.raw", sector_size);
        assert!(failures(&path, &authority(&fixture)).is_empty());
        let Report::Disk(disk) = Report::read(&path).unwrap() else {
            panic!("not a disk")
        };
        assert_eq!(disk.table.sector_size, sector_size);
        assert_eq!(disk.table.partitions.len(), 9);
        let state = disk.boot_state.unwrap();
        let record = state.record.unwrap();
        assert_eq!(record.a.status, SlotStatus::Trial.to_string());
        assert_eq!(record.b.status, SlotStatus::Empty.to_string());
        assert!(state.events.is_empty() && state.quarantine.is_empty());
        assert!(disk.slots[1].empty, "slot B");
        assert!(disk.slots[2].manifest.is_some(), "recovery");
    }
}

#[test]
fn equal_parts_give_equal_bytes() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.disk("one.raw", 512), fixture.disk("two.raw", 512));
    assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
    let (one, two) = (fixture.bundle("one.spb"), fixture.bundle("two.spb"));
    assert!(std::fs::read(one).unwrap() == std::fs::read(two).unwrap());
}

#[test]
fn one_flipped_bit_anywhere_is_found_where_it_is() {
    let fixture = Fixture::new();
    let root_size = fixture.system.manifest.root.as_ref().unwrap().size;
    for (label, offset, expected) in [
        ("boot-a", 16, "boot-a"),
        ("boot-a", 5000, "boot-a"),
        ("boot-a", (1 << 20) + 4_999_999, "boot-a"),
        ("boot-r", (1 << 20) + 7, "boot-r"),
        ("root-a", 0, "root-a"),
        ("root-a", root_size - 4096, "root-a"),
        // The first cluster of the loader, and the boot sector.
        ("esp-b", (32 + 2 * 1009 + 3) * 512 + 400, "ESPs"),
        ("esp-a", 82, "ESPs"),
        ("boot-state", 100, "boot-state record"),
    ] {
        let path = fixture.disk("disk.raw", 512);
        flip(&path, label, offset);
        let failed = failures(&path, &authority(&fixture));
        assert!(
            failed.iter().any(|check| check.what == expected),
            "{label} at {offset}: {failed:?}"
        );
    }
}

#[test]
fn a_disk_that_is_cut_short_or_has_lost_its_backup_table_is_found() {
    let fixture = Fixture::new();
    for sector_size in [512, 4096] {
        let failed = |damage: fn(&File, u64)| {
            let path = fixture.disk("disk.raw", sector_size);
            let file = File::options().write(true).open(&path).unwrap();
            damage(&file, file.metadata().unwrap().len());
            let failed = failures(&path, &authority(&fixture));
            failed.into_iter().map(|it| it.what).collect::<Vec<_>>()
        };
        assert!(failed(|_, _| {}).is_empty());
        let table = "partition table".to_owned();
        assert!(failed(|file, size| file.set_len(size - 1).unwrap()).contains(&table));
        assert!(
            failed(|file, size| file.write_all_at(&[0; 4096], size - 4096).unwrap())
                .contains(&table)
        );
    }
}

#[test]
fn a_bundle_is_whole_and_one_flipped_bit_is_found() {
    let fixture = Fixture::new();
    let path = fixture.bundle("image.spb");
    assert!(failures(&path, &authority(&fixture)).is_empty());
    let size = path.metadata().unwrap().len();
    for at in [70, 4000, size / 2, size - 1] {
        let path = fixture.bundle("image.spb");
        flip_at(
            &File::options().read(true).write(true).open(&path).unwrap(),
            at,
        );
        // What is damaged before the frames may make the bundle unreadable; that is found as well.
        let found = verify(&path, &authority(&fixture)).map_or(true, |checks| !checks.good());
        assert!(found, "byte {at} of {size}");
    }
}

#[test]
fn frames_that_a_power_cut_emptied_are_not_in_the_next_bundle() {
    let fixture = Fixture::new();
    fixture.bundle("image.spb");
    let mut emptied = 0;
    for frame in std::fs::read_dir(fixture.path("cache/frames")).unwrap() {
        std::fs::write(frame.unwrap().path(), "").unwrap();
        emptied += 1;
    }
    assert!(emptied > 3);
    let again = fixture.bundle("image.spb");
    assert!(failures(&again, &authority(&fixture)).is_empty());
}

#[test]
fn what_a_build_made_of_damaged_parts_is_refused() {
    let fixture = Fixture::new();
    let trust = fixture.trust();
    let made = [fixture.disk("disk.raw", 512), fixture.bundle("image.spb")];
    outputs::check(&made, &trust).unwrap();
    // The root is no longer what its tree was made of.
    let mut options = File::options();
    let root = options.read(true).write(true).open(fixture.path("root"));
    flip_at(&root.unwrap(), 12_345);
    for path in [fixture.disk("disk.raw", 512), fixture.bundle("image.spb")] {
        let error = outputs::check(std::slice::from_ref(&path), &trust).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("came out wrong, at root"), "{error}");
    }
}

#[test]
fn a_bundle_that_is_cut_short_is_refused_at_every_length() {
    let fixture = Fixture::new();
    let path = fixture.bundle("image.spb");
    let size = path.metadata().unwrap().len();
    for length in [0, 1, 8, 63, 64, 200, 3000, size / 3, size - 1] {
        let path = fixture.bundle("image.spb");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
        let bad = verify(&path, &authority(&fixture)).map_or(true, |checks| !checks.good());
        assert!(bad, "{length} of {size} bytes");
    }
}

#[test]
fn a_loader_is_a_bundle_too() {
    let fixture = Fixture::new();
    let path = fixture.loader_bundle("loader.spb");
    let checks = verify(&path, &authority(&fixture)).unwrap();
    assert!(checks.good(), "{checks:?}");
    assert!(checks.checks.iter().any(|check| check.what == "loader"));
    let Report::Bundle(bundle) = Report::read(&path).unwrap() else {
        panic!("not a bundle")
    };
    assert_eq!((bundle.uki_frames, bundle.root_frames), (1, 0));
    // Signed as it must be, but what it would start is somebody else's.
    let other = Fixture::new();
    let failed = failures(&other.loader_bundle("loader.spb"), &authority(&fixture));
    assert!(!failed.is_empty());
}

#[test]
fn a_uki_whose_stub_listens_to_smbios_is_refused_though_it_is_signed() {
    let fixture = Fixture::with_stub(b"_SM3_\0");
    let failed = failures(&fixture.disk("disk.raw", 512), &authority(&fixture));
    let places: Vec<&str> = failed.iter().map(|check| check.what.as_str()).collect();
    assert_eq!(places, ["boot-a", "boot-r"]);
    let failed = failures(&fixture.bundle("image.spb"), &authority(&fixture));
    assert!(
        matches!(&failed[..], [check] if check.what == "UKI" && check.found.contains("SMBIOS"))
    );
}

#[test]
fn keys_of_somebody_else_do_not_verify() {
    let (ours, theirs) = (Fixture::new(), Fixture::new());
    for path in [ours.disk("disk.raw", 512), ours.bundle("image.spb")] {
        assert!(!failures(&path, &authority(&theirs)).is_empty());
    }
}

#[test]
fn what_is_neither_disk_nor_bundle_is_said_to_be_so() {
    let fixture = Fixture::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = fixture.path(name);
        std::fs::write(&path, bytes).unwrap();
        format!("{:#}", Report::read(&path).unwrap_err())
    };
    assert!(file("text", &[b'x'; 20_000]).contains("partition table"));
    assert!(file("empty", b"").contains("is empty"));
    assert!(file("packed", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0]).contains("zstd -d"));
    assert!(file("qcow2", b"QFI\xfb....").contains("qemu-img convert"));
    assert!(format!("{:#}", Report::read(&fixture.path("none")).unwrap_err()).contains("none"));
}
