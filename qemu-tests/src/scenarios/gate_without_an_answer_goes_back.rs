//! an upgrade whose health gate gets no answer, because the bus hangs, is given up at the gate's deadline, and the machine goes back without the bus

use anyhow::Result;

use crate::artefacts::Version;
use crate::defects::Defect;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "gate-without-an-answer-goes-back",
    shows: "an upgrade whose health gate gets no answer, because the bus hangs, is given up at the gate's deadline, and the machine goes back without the bus",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 240,
    run,
};

const DEFECT: Defect = Defect {
    name: "bus-hangs",
    sign: "unhealthy, going back",
    // The deadline of the image's profile.
    no_sooner: 90,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Defective)?.directory())?;
    let (_disk, mut machine) = context.well(Options::default())?;
    machine.install_defects(&server.url("bundle.spb"), &[DEFECT])?;
    machine.wait_until_back("given-up")?;
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
