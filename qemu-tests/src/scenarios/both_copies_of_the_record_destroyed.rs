//! with both copies of the record destroyed, the loader makes a new one of the slots that verify, and says so

use anyhow::Result;
use boot_core::store::COPIES;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "both-copies-of-the-record-destroyed",
    shows: "with both copies of the record destroyed, the loader makes a new one of the slots that verify, and says so",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 45,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    for copy in COPIES {
        disk.zero("boot-state", copy, 512)?;
    }
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    // One try each, and the running one has proved itself with it.
    expect(
        status["slots"]["b"]["status"] == "trial" && status["slots"]["b"]["tries"] == 1,
        "slot B to have one try",
        &status["slots"],
    )?;
    let history = machine.history()?;
    expect(
        history
            .iter()
            .any(|event| event["kind"] == "record-rebuilt"),
        "the history to say that the record was lost",
        &history.into(),
    )
}
