//! a clock in 2039, one set back to 1980 while the machine runs, and one in 1970 at the next start keep nothing from being installed, started and marked good

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "clock-that-jumps",
    shows: "a clock in 2039, one set back to 1980 while the machine runs, and one in 1970 at the next start keep nothing from being installed, started and marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 130,
    run,
};

fn at(time: &str) -> Options {
    Options {
        extra: ["-rtc", &format!("base={time}")].map(str::to_owned).into(),
        ..Options::default()
    }
}

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::First)?.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], at("2039-06-01T00:00:00"), Version::First)?;
    let status = machine.status_of(Version::First.number())?;
    expect(
        status["clock"]["implausible"].is_string(),
        "a clock that is said to be wrong",
        &status["clock"],
    )?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    machine.run_within(&install, Duration::from_secs(300))?;
    machine.run("date -s 1980-01-01 && bootctl activate")?;
    machine.reboot()?;
    machine.wait_for_line("starting slot B", machine.boot_limit())?;
    machine.wait_until_good(Version::First.number())?;
    machine.power_off()?;

    let mut machine = context.start_well(&[&disk], at("1970-01-01T00:01:00"), Version::First)?;
    let status = machine.status_of(Version::First.number())?;
    expect(
        status["booted"]["slot"] == "b",
        "slot B to run",
        &status["booted"],
    )?;
    let built = &machine.json("cat /usr/lib/sternpost/image.json")?["build_time"];
    let now: u64 = machine.run("date +%s")?.trim().parse()?;
    expect(
        Some(now) >= built.as_u64(),
        "a time no earlier than the image",
        &now.into(),
    )
}
