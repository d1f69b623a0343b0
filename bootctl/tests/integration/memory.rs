//! `bootctl install` in bounded memory.

use std::process::Stdio;

use crate::fixture::{Fixture, Image, noise};

/// Of what is promised, in KiB, this is left for leaves (12 MiB) and index (6 MiB) of a large root.
const LEFT_FOR_LARGE_ROOTS: u64 = 18 << 10;

/// And this for the program itself, as it is in an image. Not measured here: a debug build is several times as large.
const PROGRAM: u64 = 14 << 10;

/// `STERNPOST_BOOTCTL` names another build of the program to measure.
#[test]
fn an_installation_stays_below_48_mib() {
    let machine = Fixture::new();
    let mut image = Image::new("2.0");
    image.root = noise(5, 96 << 20);
    image.seal();
    machine.partition("root-b").set_len(100 << 20).unwrap();
    let file = machine.file("bundle.spb", &image.bundle());
    let program = std::env::var("STERNPOST_BOOTCTL");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_bootctl").into());
    let mut child = std::process::Command::new(program)
        .arg("--root")
        .arg(machine.root())
        .args(["install", &file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut most = 0;
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
        let kib = status.ok().and_then(|text| {
            let line = text.lines().find(|l| l.starts_with("RssAnon:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        most = most.max(kib.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    machine.assert_holds(&image, "staged");
    assert!(most > 0, "its memory was never read");
    println!("peak memory: {most} KiB");
    assert!(
        most + LEFT_FOR_LARGE_ROOTS + PROGRAM <= 48 << 10,
        "{most} KiB"
    );
}
