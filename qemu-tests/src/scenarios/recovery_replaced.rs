//! with both slots good, recovery is replaced by a bundle, its header last, and the new one starts

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::slots;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "recovery-replaced",
    shows: "with both slots good, recovery is replaced by a bundle, its header last, and the new one starts",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 180,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::First)?.directory())?;
    let disk = context.first_disk()?;
    // None that starts: what comes up in the end is what was installed.
    let (_, size) = disk.bounds("boot-r")?;
    disk.zero("boot-r", 0, size)?;
    let options = Options {
        memory: 2048,
        ..Options::default()
    };
    let update = format!("bootctl update-recovery {}", server.url("recovery.spb"));
    let mut machine = context.start_well(&[&disk], options.clone(), Version::First)?;
    let (code, said) = machine.run_refused(&update, Duration::from_secs(120))?;
    expect(
        code == 3 && said.contains("slot B is empty"),
        "a refusal",
        &said.into(),
    )?;
    machine.power_off()?;
    drop(machine);
    slots::twin(&disk, true)?;
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    machine.run_within(&update, Duration::from_secs(600))?;
    let _ = machine.run("bootctl reboot --recovery");
    machine.wait_for_boot(REBOOT)?;
    machine.wait_for_line("starting recovery", REBOOT)?;
    machine.wait_for_line("root@", machine.boot_limit())?;
    Ok(())
}
