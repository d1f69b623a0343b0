//! an upgrade that is not healthy is given up at once: back in the old version, reason kept, digest quarantined, refused when installed again

use std::time::Duration;

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::{REBOOT, expect};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "unhealthy-upgrade-goes-back",
    shows: "an upgrade that is not healthy is given up at once: back in the old version, reason kept, digest quarantined, refused when installed again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: true,
    seconds: 150,
    run,
};

fn run(context: &Context) -> Result<()> {
    let bad = context.image(Version::Unhealthy)?;
    let server = Server::start(bad.directory())?;
    let url = server.url("bundle.spb");
    let (_disk, mut machine) = context.well(Options::default())?;

    machine.install_now(&url)?;
    // Its own deadline, and the way down.
    machine.wait_for_boot(Duration::from_secs(120) + REBOOT)?;
    let status = machine.wait_until_good(Version::First.number())?;
    expect(
        status["slots"]["b"]["status"] == "given-up",
        "slot B to be given up",
        &status["slots"],
    )?;
    expect(
        status["slots"]["b"]["quarantined"] == true,
        "its image in quarantine",
        &status["slots"],
    )?;
    let history = machine.history()?;
    let reason = history.iter().find(|event| event["kind"] == "given-up");
    let text = reason
        .and_then(|event| event["text"].as_str())
        .unwrap_or_default()
        .to_owned();
    if !text.contains("demo-unhealthy.service") {
        bail!("the history does not say why it was given up: {history:#?}");
    }

    let (code, said) =
        machine.run_refused(&format!("bootctl install {url}"), Duration::from_secs(60))?;
    if code != 3 || !said.contains("quarantine") {
        bail!("installing it again ended with code {code}, not 3 for quarantine:\n{said}");
    }
    Ok(())
}
