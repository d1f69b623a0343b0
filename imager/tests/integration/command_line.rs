//! The program itself: messages and exit statuses.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::Fixture;

fn imager(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_imager"))
        .args(arguments)
        .current_dir(directory)
        .env("STERNPOST_CACHE", directory.join("cache"))
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn keygen_makes_private_keys_once() {
    let directory = tempfile::tempdir().unwrap();
    let make = || imager(&["keygen", "--product", "edge", "keys"], directory.path());
    let first = make();
    assert!(first.status.success(), "{}", said(&first));
    assert!(!said(&first).contains("PRIVATE"));
    let next = "imager build RECIPE.toml --keys keys";
    assert!(said(&first).contains(next), "{}", said(&first));
    let again = make();
    assert_eq!(again.status.code(), Some(1));
    assert!(
        said(&again).contains("never overwritten"),
        "{}",
        said(&again)
    );
}

#[test]
fn keygen_makes_nothing_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = imager(
            &[&["keygen"], arguments, &["keys"]].concat(),
            directory.path(),
        );
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(!directory.path().join("keys").exists());
        said(&output)
    };
    let long = "x".repeat(65);
    for product in ["my appliance", "", ".edge", &long] {
        let said = refused(&["--product", product]);
        assert!(said.contains("no product that a recipe can name"), "{said}");
    }
    for threshold in ["--root-threshold", "--signing-threshold"] {
        let said = refused(&["--product", "edge", threshold, "2"]);
        assert!(
            said.contains("a threshold of 2 cannot be met by 1"),
            "{said}"
        );
    }
}

#[test]
fn verify_ends_with_4_when_something_is_wrong() {
    let fixture = Fixture::new();
    fixture.bundle("image.spb");
    let directory = fixture.path("");
    let good = imager(&["verify", "image.spb", "--keys", "keys"], &directory);
    assert!(good.status.success(), "{}", said(&good));
    let bundle = fixture.path("image.spb");
    let mut bytes = std::fs::read(&bundle).unwrap();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    std::fs::write(&bundle, bytes).unwrap();
    let bad = imager(&["verify", "image.spb", "--keys", "keys"], &directory);
    assert_eq!(bad.status.code(), Some(4), "{}", said(&bad));
    assert!(said(&bad).contains("FAILED"), "{}", said(&bad));
    // The header, the part of it that says what the file is, and all that comes after it.
    for damage in [9..10, 0..1, 12..usize::MAX] {
        fixture.bundle("image.spb");
        let mut bytes = std::fs::read(&bundle).unwrap();
        match damage.end {
            usize::MAX => bytes.truncate(damage.start),
            _ => bytes[damage].iter_mut().for_each(|byte| *byte ^= 1),
        }
        std::fs::write(&bundle, bytes).unwrap();
        let bad = imager(&["verify", "image.spb", "--keys", "keys"], &directory);
        assert_eq!(bad.status.code(), Some(4), "{}", said(&bad));
        assert!(said(&bad).contains("FAILED"), "{}", said(&bad));
    }
    let missing = imager(&["verify", "none.spb", "--keys", "keys"], &directory);
    assert_eq!(missing.status.code(), Some(1), "{}", said(&missing));
    let usage = imager(&["verify", "image.spb"], &directory);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn inspect_shows_the_same_facts_to_people_and_programs() {
    let fixture = Fixture::new();
    fixture.disk("disk.raw", 512);
    let directory = fixture.path("");
    let text = said(&imager(&["inspect", "disk.raw"], &directory));
    for part in [
        "boot-state",
        "edge 1.0 (system)",
        "boot-b: empty",
        "7 tries left",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let json = imager(&["inspect", "--json", "disk.raw"], &directory);
    let facts: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(facts["kind"], "disk");
    assert_eq!(facts["slots"][0]["manifest"]["version"], "1.0");
    assert_eq!(facts["slots"][1]["empty"], true);
}

#[test]
fn inspect_shows_what_a_machine_left() {
    let fixture = Fixture::new();
    let state = include_bytes!("../data/state.ext4.zst");
    std::fs::write(fixture.path("state"), zstd::decode_all(&state[..]).unwrap()).unwrap();
    fixture.disk("disk.raw", 4096);
    let text = said(&imager(&["inspect", "disk.raw"], &fixture.path("")));
    for part in [
        "owner       version 2.1, state epoch 3, Kubernetes kubeadm 1.36.3, manifest abababab",
        "host name   box-7",
        "clock       2026-11-20 18:40 UTC",
        "ended in a clean shutdown",
        "/epoch/etc/kubernetes/pki/ca.crt, until 2036-11-28 03:34 UTC",
        "broken.crt: not a certificate",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn who_reads_only_the_beginning_hears_no_complaint() {
    let fixture = Fixture::new();
    fixture.disk("disk.raw", 512);
    fixture.bundle("image.spb");
    let directory = fixture.path("");
    let unread = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Command::new(env!("CARGO_BIN_EXE_imager"))
            .args(arguments)
            .current_dir(&directory)
            .env("STERNPOST_CACHE", directory.join("cache"))
            .stdout(writer)
            .output()
            .unwrap()
    };
    for arguments in [
        &["inspect", "disk.raw"][..],
        &["inspect", "--json", "disk.raw"],
        &["verify", "image.spb", "--keys", "keys"],
        &["cache", "list"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let output = unread(arguments);
        assert!(
            output.status.success() && said(&output).is_empty(),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    // What was found stands, whoever reads it.
    std::fs::write(directory.join("image.spb"), "SPBUNDLE").unwrap();
    assert_eq!(
        unread(&["verify", "image.spb", "--keys", "keys"])
            .status
            .code(),
        Some(4)
    );
    // A full disk is no reader.
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_imager"));
    let output = command
        .args(["completions", "bash"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("standard output"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_build_without_keys_says_how_to_make_them() {
    let directory = tempfile::tempdir().unwrap();
    let recipe = concat!(env!("STERNPOST_SOURCE"), "/recipes/images/minimal-vm.toml");
    let output = imager(&["build", recipe], directory.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("imager keygen"), "{}", said(&output));
}

#[test]
fn a_build_says_what_is_hardly_meant_and_refuses_it_where_asked() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let recipe = "product = \"edge\"\nheadroom = 1\nprofile = \"p.yaml\"\n\
                  [kernel]\nx86_64 = \"linux-image-amd64\"\n[packages]\ncommon = [\"systemd\"]\n";
    write("edge.toml", recipe);
    write("p.yaml", "version: 1\nnetwork: {dns: [9.9.9.9, 9.9.9.9]}\n");
    imager(&["keygen", "--product", "edge", "keys"], directory.path());
    let arguments = ["build", "edge.toml", "--deny-warnings", "--quiet"];
    let output = imager(&arguments, directory.path());
    assert_eq!(output.status.code(), Some(1));
    for expected in [
        "edge.toml:2:12: warning: ",
        "p.yaml:2:26",
        "2 warnings, which --deny-warnings refuses",
    ] {
        assert!(
            said(&output).contains(expected),
            "{expected:?} is not in\n{}",
            said(&output)
        );
    }
    assert!(!directory.path().join("out").exists());
    // Out of the reach of a new machine, which somebody may mean.
    write("edge.toml", &recipe.replace("headroom = 1\n", ""));
    write("p.yaml", "version: 1\n");
    let arguments = [&arguments[..], &["--security-version", "4294967297"]].concat();
    let output = imager(&arguments, directory.path());
    assert_eq!(output.status.code(), Some(1));
    let expected = "machines take nothing more than 4294967296 above";
    assert!(said(&output).contains(expected), "{}", said(&output));
    assert!(said(&output).contains("one warning, which"));
}

#[test]
fn a_bundle_is_not_run_as_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bundle.spb"), "SPBUNDLE and so on").unwrap();
    let output = imager(&["run", "bundle.spb", "--print"], directory.path());
    let said = said(&output);
    assert!(
        !output.status.success() && said.contains("is a bundle"),
        "{said}"
    );
}

#[test]
fn completions_and_man_pages_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let completions = imager(&["completions", "bash"], directory.path());
    assert!(said(&completions).contains("imager"));
    let man = imager(&["man", "man"], directory.path());
    assert!(man.status.success(), "{}", said(&man));
    assert!(directory.path().join("man/imager-build.1").exists());
}
