//! a machine whose power is cut in the middle of an install boots the old version, and the install goes on when run again

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

/// What has been sent when the power goes: the first chunks of the UKI, and not all of what is different.
const CUT_AFTER: u64 = 9 << 20;
/// What a write that was lost costs at most: the chunk that it belongs to.
const CHUNK: u64 = 4 << 20;
/// The largest piece that has to be fetched again: a chunk, and the front of the bundle.
const AGAIN: u64 = CHUNK + (2 << 20);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "install-cut-by-power-loss",
    shows: "a machine whose power is cut in the middle of an install boots the old version, and the install goes on when run again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 180,
    run,
};

fn run(context: &Context) -> Result<()> {
    let second = context.image(Version::Second)?;
    let server = Server::start(second.directory())?;
    let (disk, mut machine) = context.well(Options::recorded())?;
    let install = format!("bootctl install {}", server.url("bundle.spb"));
    // Once in peace, to know what there is to fetch; then the slot is as it was.
    machine.run_within(&install, Duration::from_secs(300))?;
    let all = server.sent();
    for partition in ["boot-b", "root-b"] {
        let device = &machine.json("cat /run/sternpost/boot.json")?["partitions"][partition];
        let device = device.as_str().unwrap_or_default().to_owned();
        machine.run(&format!("blkdiscard --force --zeroout {device}"))?;
    }
    // Slow enough that the cut comes in the middle on every host.
    server.limit_rate(2 << 20);
    let mut ssh = machine.run_beside(&install)?;
    let began = Instant::now();
    while server.sent() - all < CUT_AFTER {
        if began.elapsed() > context.patience(Duration::from_secs(120))? {
            bail!("the install fetched {} bytes only", server.sent() - all);
        }
        if let Some(status) = ssh.try_wait()? {
            bail!(
                "the install ended too soon ({status}), after {} bytes",
                server.sent() - all
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let loss = machine.lose_power(&disk, &mut context.chance())?;
    eprintln!("the cut: {loss}");
    let _ = ssh.wait();
    let before_the_cut = server.sent() - all;
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
    let again = server.sent() - before;
    if again + before_the_cut > all + AGAIN + loss.lost() as u64 * CHUNK {
        bail!(
            "{before_the_cut} bytes before the cut and {again} after it, where {all} are different: it began anew"
        );
    }
    Ok(())
}
