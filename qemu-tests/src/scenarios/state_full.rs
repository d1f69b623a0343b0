//! with neither a byte nor an inode left on state, every command of bootctl works: the same bundle goes into the other slot, which starts and is marked good

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::server::Server;
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "state-full",
    shows: "with neither a byte nor an inode left on state, every command of bootctl works: the same bundle goes into the other slot, which starts and is marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::Well,
    gate: false,
    seconds: 170,
    run,
};

/// As root, to the last byte and the last inode.
const FILL: &str = "cd /var && mkdir fill && cd fill && { \
    seq 1 100000 | xargs -n 500 touch; \
    dd if=/dev/zero of=1 bs=1M; dd if=/dev/zero of=2 bs=4096; dd if=/dev/zero of=3 bs=1; } 2>/dev/null; sync; \
    ! touch one-more 2>/dev/null";

fn run(context: &Context) -> Result<()> {
    let server = Server::start(context.image(Version::First)?.directory())?;
    let (disk, mut machine) = context.well(Options::default())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.run_within(FILL, Duration::from_secs(300))?;
    let status = machine.status()?;
    expect(
        status["state"]["free"] == 0
            && status["state"]["free_inodes"]
                .as_u64()
                .is_some_and(|free| free < 8),
        "a state without a byte or an inode left",
        &status["state"],
    )?;
    expect(
        status["problems"].to_string().contains("inodes are free"),
        "a word about it",
        &status["problems"],
    )?;

    let install = format!("bootctl install {}", server.url("bundle.spb"));
    machine.run_within(&install, Duration::from_secs(300))?;
    machine.run("bootctl mark-good && bootctl history && bootctl activate")?;
    machine.reboot()?;
    machine.wait_for_line("starting slot B", machine.boot_limit())?;
    let status = machine.wait_until_good(Version::First.number())?;
    let slots = &status["slots"];
    expect(
        slots["a"]["status"] == "good"
            && slots["b"]["status"] == "good"
            && slots["a"]["manifest"] == slots["b"]["manifest"],
        "one version, good in both slots",
        slots,
    )?;

    // An end that was not a clean shutdown is seen, though nothing could be written anew.
    machine.switch_off();
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    machine.wait_for_ssh(machine.boot_limit())?;
    let history = machine.history()?;
    expect(
        history
            .iter()
            .any(|event| event["kind"] == "unclean-shutdown"),
        "an unclean end that was noticed",
        &history.into(),
    )
}
