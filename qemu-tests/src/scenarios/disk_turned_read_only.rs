//! on a disk that has turned read-only the good slot starts, unrecorded, with state in memory; the machine can be managed and says what is wrong

use anyhow::Result;

use crate::artefacts::Version;
use crate::fault::Faults;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "disk-turned-read-only",
    shows: "on a disk that has turned read-only the good slot starts, unrecorded, with state in memory; the machine can be managed and says what is wrong",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 110,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (disk, mut machine) = context.well(Options::default())?;
    machine.power_off()?;
    let before = std::fs::metadata(disk.path())?.modified()?;

    let mut machine = context.start_unrecorded(&disk, &Faults::read_only())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let status = machine.status()?;
    expect(
        status["booted"]["slot"] == "a"
            && status["booted"]["why"] == "unrecorded"
            && status["state"]["check"]["problem"] == "unusable"
            && status["disk"]["read_only"] == true
            && status["problems"]
                .to_string()
                .contains("the disk is read-only"),
        "a good slot that runs from a read-only disk and says so",
        &status,
    )?;
    machine.switch_off();
    expect(
        std::fs::metadata(disk.path())?.modified()? == before,
        "a disk that nothing was written to",
        &"it changed".into(),
    )?;
    context.start_well(&[&disk], Options::default(), Version::First)?;
    Ok(())
}
