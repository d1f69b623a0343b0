//! an upgrade that loses its power three times before a verdict is unproven: the fourth start is the old version

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "no-verdict-three-times-goes-back",
    shows: "an upgrade that loses its power three times before a verdict is unproven: the fourth start is the old version",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 160,
    run,
};

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::Undecided)?.directory())?;
    let (disk, mut machine) = context.well(Options::recorded())?;
    machine.install_now(&server.url("bundle.spb"))?;
    let mut chance = context.chance();
    for _ in 0..3 {
        machine.wait_for_line("starting slot B", machine.boot_limit())?;
        machine.wait_for_line("sternpost: initrd agent", machine.boot_limit())?;
        let loss = machine.lose_power(&disk, &mut chance)?;
        eprintln!("the power: {loss}");
        machine = context.start_recorded(&disk, Options::default())?;
        machine.wait_for_boot(machine.boot_limit())?;
    }
    let status = machine.wait_until_back("unproven")?;
    expect(
        status["slots"]["b"]["quarantined"] == false,
        "nothing in quarantine",
        &status["slots"],
    )?;
    let history = machine.history()?;
    expect(
        history.iter().any(|event| event["kind"] == "unproven"),
        "the history to say that it is unproven",
        &history.into(),
    )
}
