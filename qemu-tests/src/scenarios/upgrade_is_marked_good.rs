//! an upgrade over HTTP starts in the other slot, is marked good, and keeps data and identity

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::{Machine, Options};
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "upgrade-is-marked-good",
    shows: "an upgrade over HTTP starts in the other slot, is marked good, and keeps data and identity",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 100,
    run,
};

fn run(context: &Context) -> Result<()> {
    let (_disk, mut machine) = context.well(Options::default())?;
    is_upgraded(context, &mut machine)
}

/// Upgrades a machine on which the first version is well to the second one, and looks at all that is to come of it.
pub(super) fn is_upgraded(context: &Context, machine: &mut Machine<'_>) -> Result<()> {
    let second = context.image(Version::Second)?;
    let server = Server::start(second.directory())?;
    let id = machine.leave_mark()?;

    machine.install_now(&server.url("bundle.spb"))?;
    let status = machine.wait_until_good(Version::Second.number())?;
    expect(
        status["booted"]["slot"] == "b",
        "slot B to run",
        &status["booted"],
    )?;
    expect(
        status["slots"]["a"]["status"] == "good",
        "slot A to stay good",
        &status["slots"],
    )?;
    expect(
        status["slots"]["b"]["status"] == "good",
        "slot B to be good",
        &status["slots"],
    )?;
    let digest = second.manifest_digest()?.to_string();
    expect(
        status["booted"]["manifest"] == digest.as_str(),
        &format!("manifest {digest}"),
        &status["booted"],
    )?;
    machine.expect_mark(&id)
}
