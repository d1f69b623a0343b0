//! `bootctl profile`, on a machine and elsewhere.

use std::io::Write as _;
use std::process::Stdio;

use crate::fixture::{Fixture, Ran};

fn check_stdin(machine: &Fixture, text: &str) -> Ran {
    let mut child = machine
        .command(&["profile", "check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    Ran(child.wait_with_output().unwrap())
}

#[test]
fn a_profile_is_read_from_standard_input_too() {
    let machine = Fixture::new();
    let good = check_stdin(&machine, "version: 1\nhostname: till-7\n").ok();
    assert_eq!(good.out(), "standard input is valid\n");
    let wrong = check_stdin(&machine, "version: 1\nhostnme: till-7\n").code_is(9);
    assert!(
        wrong.out().contains("standard input:2:1"),
        "{}",
        wrong.out()
    );
}

#[test]
fn a_machine_without_a_profile_has_what_stands_in_for_one() {
    let machine = Fixture::new();
    std::fs::remove_file(machine.root().join("usr/lib/sternpost/profile.yaml")).unwrap();
    let ran = machine.run(&["profile", "check"]).ok();
    assert!(
        ran.out().contains("stands in for a profile"),
        "{}",
        ran.out()
    );
    machine.run(&["profile", "show"]).ok();
    machine
        .run(&["profile", "check", "/nowhere/profile.yaml"])
        .fails(9, &["reading the profile /nowhere/profile.yaml"]);
}

#[test]
fn a_host_that_is_no_appliance_is_told_to_name_a_profile() {
    let machine = Fixture::new();
    std::fs::remove_file(machine.root().join("usr/lib/sternpost/image.json")).unwrap();
    for command in [["profile", "check"], ["profile", "show"]] {
        machine.run(&command).fails(
            8,
            &["the profile of this machine", "bootctl profile check FILE"],
        );
    }
    let file = machine.file("profile.yaml", b"version: 1\n");
    machine.run(&["profile", "check", &file]).ok();
}
