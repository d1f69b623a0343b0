//! Whatever lies in `state` under the names of our files: a version on trial comes to its verdict, and the right one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fixture::{Fixture, noise};
use crate::serve::Service;
use crate::systemd::Systemd;

/// The files of `state/sternpost` that the page of formats names: all of them, so that a new one is tried, too.
fn ours(machine: &Fixture) -> Vec<PathBuf> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/formats/state.md");
    let page = fs::read_to_string(page).unwrap();
    let names = page.lines().filter_map(|line| {
        let name = line.strip_prefix("| `sternpost/")?.split('`').next()?;
        (!name.ends_with('/')).then(|| machine.root().join("state/sternpost").join(name))
    });
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// What serve reports of version 2.0 on trial, on a machine on which these files were made by `make`.
fn judged(files: impl Fn(&Path) -> bool, make: &impl Fn(&Path)) -> (Fixture, Value) {
    let machine = Fixture::new();
    let profile = "version: 1\nhostname: edge-1\nhealth: {deadline: 40s, settle: 1s}\n";
    let image = machine.root().join("usr/lib/sternpost");
    fs::write(image.join("profile.yaml"), profile).unwrap();
    machine.upgrade();
    for file in ours(&machine).iter().filter(|file| files(file)) {
        let _ = fs::remove_file(file);
        make(file);
    }
    let systemd = Systemd::listen(&machine.root().join("run/systemd/private"));
    let service = Service::start(&machine);
    let report = service.wait(&machine, |r| !r["verdict"].is_null());
    for command in [["status"].as_slice(), &["history"], &["profile", "show"]] {
        machine.run(command).ok();
    }
    drop((service, systemd));
    (machine, report)
}

fn comes_to_its_verdict(make: impl Fn(&Path)) {
    let decides = ["profile.yaml", "owner.json"];
    let is = |file: &Path, name: &str| file.ends_with(name);
    let (machine, report) = judged(|file| !decides.iter().any(|name| is(file, name)), &make);
    assert_eq!(report["verdict"], "healthy", "{report:#}");
    assert_eq!(machine.record().b.status().name(), "good");
    // What the operator asked for is not what runs, or whose `state` it is cannot be told: the version goes back.
    for name in decides {
        let (machine, report) = judged(|file| is(file, name), &make);
        assert_eq!(report["verdict"], "unhealthy", "{report:#}");
        assert!(
            report["reason"].as_str().unwrap().contains(name),
            "{report:#}"
        );
        assert!(machine.record().a.is_good());
    }
}

#[test]
fn empty_files() {
    comes_to_its_verdict(|file| fs::write(file, "").unwrap());
}

#[test]
fn files_of_zeros_as_a_power_cut_leaves_them() {
    comes_to_its_verdict(|file| fs::write(file, [0; 4096]).unwrap());
}

#[test]
fn noise_in_place_of_text() {
    comes_to_its_verdict(|file| fs::write(file, noise(7, 300)).unwrap());
}

#[test]
fn values_of_another_type() {
    comes_to_its_verdict(|file| fs::write(file, "[[], 18446744073709551616, {}]").unwrap());
}

#[test]
fn files_without_an_end() {
    comes_to_its_verdict(|file| fs::File::create(file).unwrap().set_len(1 << 40).unwrap());
}

#[test]
fn directories() {
    comes_to_its_verdict(|file| fs::create_dir_all(file.join("inside")).unwrap());
}

#[test]
fn pipes_that_nobody_writes_into() {
    comes_to_its_verdict(|file| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, file, kind, mode, 0).unwrap();
    });
}

#[test]
fn links_in_a_circle() {
    comes_to_its_verdict(|file| symlink(file, file).unwrap());
}

#[test]
fn links_to_nowhere_are_as_no_files_at_all() {
    let make = |file: &Path| symlink("/nowhere/at/all", file).unwrap();
    let (machine, report) = judged(|_| true, &make);
    assert_eq!(report["verdict"], "healthy", "{report:#}");
    assert_eq!(machine.record().b.status().name(), "good");
}
