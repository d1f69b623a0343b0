//! a machine whose power is cut while an ESP is written starts from the other one, and the ESP gets its loader back

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::loaders;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-update-cut-by-power-loss",
    shows: "a machine whose power is cut while an ESP is written starts from the other one, and the ESP gets its loader back",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    gate: false,
    seconds: 100,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::another(context)?;
    let server = Server::start(&new.directory)?;
    let disk = context.first_disk()?;
    let old = loaders::on(context, &disk, "esp-a")?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    // Slow enough to see from outside that the ESP is half-written.
    machine.limit_writes(4)?;
    let mut ssh = machine.run_beside(&format!(
        "bootctl update-loader {}",
        server.url("loader.spb")
    ))?;
    let began = Instant::now();
    let mut boot_sector = [0; 512];
    loop {
        disk.partition("esp-b")?.read(0, &mut boot_sector)?;
        if boot_sector == [0; 512] {
            break;
        }
        if began.elapsed() > context.patience(Duration::from_secs(240))? {
            bail!("esp-b was never written");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    machine.cut_power();
    let _ = ssh.wait();
    expect(
        loaders::on(context, &disk, "esp-b").is_err(),
        "the second ESP to be half-written",
        &serde_json::Value::Null,
    )?;

    let mut machine = context.start(&[&disk], Options::default())?;
    machine.wait_for_boot(machine.boot_limit())?;
    machine.wait_for_line("loaded from esp-a", machine.boot_limit())?;
    machine.wait_until_good(Version::First.number())?;
    machine.history_with(
        "writing esp-b did not come to an end",
        Duration::from_secs(120),
    )?;
    let status = machine.status()?;
    expect(
        status["esps"]["esp-b"]["loader"].as_str() == Some(&old.to_string()),
        "the old loader on the second ESP",
        &status["esps"],
    )
}
