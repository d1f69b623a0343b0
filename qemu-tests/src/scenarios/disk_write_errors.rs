//! a disk that refuses to write the other slot or ESP costs the installation alone; one that refuses the record or state still starts the good slot; what failed is said, and nothing is lost

use std::time::Duration;

use anyhow::Result;
use boot_core::store::COPIES;

use crate::artefacts::Version;
use crate::fault::{Access, Faults};
use crate::machine::Options;
use crate::places;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-write-errors",
    shows: "a disk that refuses to write the other slot or ESP costs the installation alone; one that refuses the record or state still starts the good slot; what failed is said, and nothing is lost",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 240,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::First)?.directory())?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    let disk = context.first_disk()?;
    let faults = Faults::new(&disk).at("root-b", 5 << 20, Access::Write)?;
    let mut machine = context.start_well(&[&disk], faults.options(context)?, Version::First)?;
    let id = machine.leave_mark()?;
    let (code, said) = machine.run_refused(&install, Duration::from_secs(300))?;
    expect(
        code == 1 && said.contains("writing the root") && said.contains("next: look at the disk"),
        "an installation that says what failed and what to do",
        &said.into(),
    )?;
    let status = machine.status()?;
    expect(
        status["slots"]["a"]["status"] == "good" && status["slots"]["b"]["status"] == "empty",
        "slot A good and slot B empty",
        &status["slots"],
    )?;
    machine.power_off()?;

    let [first, second] = COPIES;
    let faults = Faults::new(&disk)
        .at("boot-state", first, Access::Write)?
        .at("boot-state", second, Access::Write)?;
    let mut machine = context.start_unrecorded(&disk, &faults.options(context)?)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["booted"]["why"] == "unrecorded" && status["booted"]["recorded"] == false,
        "a start that could not be recorded",
        &status["booted"],
    )?;
    let (code, said) = machine.run_refused("bootctl reboot --recovery", Duration::from_secs(60))?;
    expect(
        code == 1 && said.contains("writing the boot-state record"),
        "a change that says that it was not written",
        &said.into(),
    )?;
    machine.power_off()?;

    let faults = Faults::new(&disk)
        .at("boot-b", 0, Access::Write)?
        .at("esp-b", places::first_fat(&disk, "esp-b")?, Access::Write)?
        .at("state", places::SUPERBLOCK, Access::Write)?;
    let mut machine = context.start(&[&disk], faults.options(context)?)?;
    let status = machine.wait_until_up_without_state()?;
    expect(
        status["booted"]["slot"] == "a" && status["state"]["check"]["problem"] == "unusable",
        "slot A, and a state that is not in use",
        &status,
    )?;
    let (code, said) = machine.run_refused(&install, Duration::from_secs(300))?;
    expect(
        code == 1
            && said.contains("clearing the header of slot B")
            && said.contains("next: look at the disk"),
        "an installation that ends before anything of the slot is written",
        &said.into(),
    )?;
    let copy = "bootctl update-loader --copy";
    let (code, said) = machine.run_refused(copy, Duration::from_secs(60))?;
    expect(
        code == 1 && said.contains("writing esp-b") && said.contains("still starts from esp-a"),
        "a loader that was not written, and what is left",
        &said.into(),
    )?;
    machine.power_off()?;

    // On a disk that writes again the same commands go on where they stopped.
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.run_within(&install, Duration::from_secs(300))?;
    machine.run(copy)?;
    let status = machine.status()?;
    expect(
        status["slots"]["b"]["status"] == "staged"
            && status["esps"]["esp-b"]["ok"] == true
            && status["state"]["check"]["problem"].is_null(),
        "slot B to be staged, and both ESPs and state to be well",
        &status,
    )?;
    machine.expect_mark(&id)
}
