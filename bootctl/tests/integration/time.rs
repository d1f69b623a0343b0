//! `bootctl time set`.

use crate::fixture::Fixture;

fn saved(machine: &Fixture) -> String {
    let path = machine.root().join("state/sternpost/clock");
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn guess(machine: &Fixture) {
    let applied = r#"{"profile": "x", "problem": null,
        "clock": {"found": 0, "set_to": 1790000000, "implausible": "no time was ever saved"}}"#;
    std::fs::write(machine.root().join("run/sternpost/applied.json"), applied).unwrap();
}

fn is_a_problem(machine: &Fixture) -> bool {
    let status = machine.run(&["status", "--json"]).ok().json();
    let problems = status["problems"].to_string();
    let is_one = problems.contains("no time was ever saved");
    assert_eq!(is_one, problems.contains("bootctl time set"), "{problems}");
    is_one
}

#[test]
fn somebody_says_the_time() {
    let machine = Fixture::new();
    guess(&machine);
    assert!(is_a_problem(&machine));
    let ran = machine.run(&["time", "set", "2026-11-22", "16:05:09"]).ok();
    assert_eq!(ran.out(), "the clock shows 2026-11-22 16:05:09 UTC\n");
    assert_eq!(saved(&machine), "1795363509");
    assert!(!is_a_problem(&machine));
    // What was set too late is put right, whatever was saved.
    machine.run(&["time", "set", "2026-11-22T16:00:00Z"]).ok();
    assert_eq!(saved(&machine), "1795363200");
}

#[test]
fn what_is_no_time_of_this_machines_is_refused() {
    let machine = Fixture::new();
    machine
        .run(&["time", "set", "tomorrow"])
        .fails(2, &["`tomorrow` is no time", "16:05"]);
    // The image is of September 2026.
    for wrong in ["2016-11-22 16:05", "2062-11-22 16:05"] {
        machine
            .run(&["time", "set", wrong])
            .fails(3, &["the image was built on 2026-09-21"]);
    }
    assert_eq!(saved(&machine), "");
}

#[test]
fn a_time_server_comes_first() {
    let machine = Fixture::new();
    guess(&machine);
    let synchronized = machine.root().join("run/systemd/timesync/synchronized");
    std::fs::create_dir_all(synchronized.parent().unwrap()).unwrap();
    std::fs::write(synchronized, "").unwrap();
    assert!(!is_a_problem(&machine));
    machine
        .run(&["time", "set", "2026-11-22 16:05"])
        .fails(3, &["a time server", "time.servers"]);
}
