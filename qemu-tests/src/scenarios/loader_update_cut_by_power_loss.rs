//! a machine whose power is cut while an ESP is written starts from the other one, and the ESP gets its loader back

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::cuts::log::{Kind, Log};
use crate::loaders;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-update-cut-by-power-loss",
    shows: "a machine whose power is cut while an ESP is written starts from the other one, and the ESP gets its loader back",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 100,
    run,
};

fn run(context: &Context) -> Result<()> {
    let new = loaders::another(context)?;
    let server = Server::start(&new.directory)?;
    let (disk, machine) = context.well(Options::recorded())?;
    let old = loaders::on(context, &disk, "esp-a")?;
    // Slow enough to see from outside that the ESP is half-written.
    machine.limit_writes(4)?;
    let mut ssh = machine.run_beside(&format!(
        "bootctl update-loader {}",
        server.url("loader.spb")
    ))?;
    let began = Instant::now();
    let (esp, size) = disk.bounds("esp-b")?;
    while !is_half_written(&machine.writes()?, esp..esp + size) {
        if began.elapsed() > context.patience(Duration::from_secs(240))? {
            bail!("esp-b was never written");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let loss = machine.lose_power(&disk, &mut context.chance())?;
    eprintln!("the cut: {loss}");
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

/// Whether its boot sector is gone for good, and something of what comes after that is written.
fn is_half_written(log: &Log, esp: Range<u64>) -> bool {
    let mut entries = log.entries.iter();
    entries.any(|it| it.start == esp.start && matches!(it.kind, Kind::Write { .. }))
        && entries.any(|it| it.kind == Kind::Flush)
        && entries.any(|it| esp.contains(&it.start) && it.kind != Kind::Flush)
}
