//! a machine whose power is cut in the middle of an install boots the old version, and the install goes on when run again

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

/// What has been sent when the power goes.
const CUT_AFTER: u64 = 24 << 20;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "install-cut-by-power-loss",
    shows: "a machine whose power is cut in the middle of an install boots the old version, and the install goes on when run again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 140,
    run,
};

fn run(context: &Context) -> Result<()> {
    let second = context.image(Version::Second)?;
    let server = Server::start(second.directory())?;
    let disk = context.first_disk()?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    // Slow enough that the cut comes in the middle on every host.
    server.limit_rate(4 << 20);
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    let mut ssh = machine.run_beside(&install)?;
    let began = Instant::now();
    while server.sent() < CUT_AFTER {
        if began.elapsed() > context.patience(Duration::from_secs(120))? {
            bail!("the install fetched {} bytes only", server.sent());
        }
        if let Some(status) = ssh.try_wait()? {
            bail!(
                "the install ended too soon ({status}), after {} bytes",
                server.sent()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    machine.cut_power();
    let _ = ssh.wait();
    server.limit_rate(0);

    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    let status = machine.status()?;
    expect(
        status["slots"]["b"]["status"] == "empty",
        "slot B to be empty",
        &status["slots"],
    )?;
    let before = server.sent();
    machine.install_now(&server.url("bundle.spb"))?;
    machine.wait_until_good(Version::Second.number())?;
    let (again, all) = (
        server.sent() - before,
        std::fs::metadata(second.bundle())?.len(),
    );
    if again >= all {
        bail!("the second install fetched {again} bytes of {all}: it began anew");
    }
    Ok(())
}
