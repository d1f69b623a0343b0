//! an upgrade whose health gate gets no answer, because the bus hangs, is given up at the gate's deadline, and the machine goes back without the bus

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "gate-without-an-answer-goes-back",
    shows: "an upgrade whose health gate gets no answer, because the bus hangs, is given up at the gate's deadline, and the machine goes back without the bus",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 240,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.write_defects(&["bus-hangs"])?;
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_for_line("defect bus-hangs", machine.boot_limit())?;
    machine.wait_for_line("unhealthy, going back", REBOOT)?;
    machine.wait_for_boot(REBOOT)?;
    machine.wait_for_line("starting slot A", REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["slots"]["b"]["status"] == "given-up",
        "slot B to be given up",
        &status["slots"],
    )?;
    let history = machine.history()?;
    expect(
        history.iter().any(|event| {
            event["kind"] == "given-up"
                && event["text"]
                    .as_str()
                    .is_some_and(|text| text.contains("answer"))
        }),
        "the history to say what did not answer",
        &history.into(),
    )
}
