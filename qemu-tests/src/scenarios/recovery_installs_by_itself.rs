//! with no slot that starts and nobody there, recovery installs what the profile names, over and over until it is to be had, and the machine runs again

use std::time::Duration;

use anyhow::{Context as _, Result};
use boot_core::Target;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "recovery-installs-by-itself",
    shows: "with no slot that starts and nobody there, recovery installs what the profile names, over and over until it is to be had, and the machine runs again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 400,
    run,
};

/// Between two tries, and before the first.
const PAUSE: Duration = Duration::from_secs(60);

fn run(context: &Context) -> Result<()> {
    let bundle = context.image(Version::Second)?.bundle();
    let shelf = context.file("shelf");
    std::fs::create_dir(&shelf).context("cannot make the server's directory")?;
    let server = Server::start(&shelf)?;
    let options = Options {
        memory: 2048,
        ..Options::default()
    };
    let (disk, machine) = context.well(options.clone())?;
    machine.have_recovery_install(&server.url("stable.spb"))?;
    slots::damage_uki(&disk, Target::A)?;

    let mut machine = context.start(&[&disk], options)?;
    machine.wait_for_line("starting recovery", machine.boot_limit())?;
    machine.wait_for_line(
        "sternpost: recovery installs http",
        machine.boot_limit() + PAUSE,
    )?;
    machine.wait_for_line("by itself: ", Duration::from_secs(300))?;
    std::os::unix::fs::symlink(&bundle, shelf.join("stable.spb"))
        .context("cannot put the bundle onto the shelf")?;
    machine.wait_for_line("sternpost: recovery installs http", PAUSE * 10)?;
    machine.wait_for_boot(Duration::from_secs(300) + REBOOT)?;
    let status = machine.wait_until_good(Version::Second.number())?;
    expect(
        status["booted"]["slot"] == "b",
        "slot B, which was empty, to run",
        &status["booted"],
    )
}
