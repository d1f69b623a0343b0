//! One seed: a cut, by chance more of them while the machine comes up again, and the machine until it is well.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fastrand::Rng;
use serde_json::Value;

use super::life::{Life, Phase, RECOVERY_PROMPT, Recorded, WITNESS};
use super::loss::{self, Loss};
use super::results::Outcome;
use crate::artefacts::Version;
use crate::disk::Disk;
use crate::machine::{LOADER_STARTS, Machine, Options};
use crate::scenario::Context;
use crate::steps::expect;

/// How long a machine may take from power on to the verdict, reboots of its own included; slow hosts are slow.
const WELL: Duration = Duration::from_secs(900);

/// More starts than a machine needs from the last cut to its verdict: one, one more where a version is left, and in
/// recovery's life recovery before them.
fn most_starts(life: Life) -> usize {
    match life {
        Life::Upgrade => 3,
        Life::Recovery => 5,
    }
}

/// Cuts by `seed` in one of `lives` and sees whether the machine becomes well. That it does not is an outcome.
///
/// # Errors
/// The host cannot do its part: a file cannot be written, QEMU cannot be started.
pub fn try_seed(seed: u64, lives: &[Recorded], context: &Context) -> Result<Outcome> {
    let mut chance = Rng::with_seed(seed);
    let began = Instant::now();
    // One in four: recovery has fewer moments of its own.
    let wanted = match seed % 4 {
        0 => Life::Recovery,
        _ => Life::Upgrade,
    };
    let found = lives.iter().find(|recorded| recorded.life == wanted);
    let Some((recorded, (phase, at))) =
        found.and_then(|recorded| Some((recorded, recorded.moment(&mut chance)?)))
    else {
        bail!("the life `{}` was not recorded", wanted.name());
    };
    let disk = Disk::copy(
        recorded.before.path(),
        &context.file("disk.raw"),
        recorded.before.sector_size(),
    )?;
    let loss = loss::cut_power(&disk, &recorded.log, at, &mut chance)?;
    let mut further = Vec::new();
    while further.len() < 2 && chance.u8(0..3) == 0 {
        further.push(cut_again(recorded, &disk, context, &mut chance)?);
    }
    let mut outcome = Outcome {
        seed,
        phase: phase.name.clone(),
        at,
        loss,
        further,
        starts: 0,
        version: None,
        recovered: false,
        error: None,
        seconds: 0,
    };
    let mut machine = context.start(&[&disk], machine_of(recorded.life))?;
    let ended = until_well(&mut machine, recorded.life, phase, &mut outcome);
    outcome.starts = machine.console().count(LOADER_STARTS);
    let ended = ended.and_then(|version| {
        let most = most_starts(recorded.life);
        if outcome.starts > most {
            bail!("{} starts, where {most} are enough", outcome.starts);
        }
        machine.power_off()?;
        disk.expect_sound()?;
        Ok(version)
    });
    outcome.seconds = began.elapsed().as_secs();
    match ended {
        Ok(version) => outcome.version = Some(version),
        Err(error) => outcome.error = Some(format!("{error:#}")),
    }
    Ok(outcome)
}

/// The machine of `life`, with one processor: on a host with two, more of them run side by side.
fn machine_of(life: Life) -> Options {
    Options {
        cpus: 1,
        ..life.machine()
    }
}

/// Starts the machine, cuts its power once it has written so much as chance says, and has the disk lose by chance what
/// was not flushed. By writes and not by the clock: on a busy host it is the same moment.
fn cut_again(
    recorded: &Recorded,
    disk: &Disk,
    context: &Context,
    chance: &mut Rng,
) -> Result<Loss> {
    let enough = chance.usize(0..=recorded.writes_of_a_start());
    let mut machine = context.start_recorded(disk, machine_of(recorded.life))?;
    let began = Instant::now();
    // It may come to its verdict before that; whether to the right one is seen after the last cut.
    let has_verdict = |it: &Machine<'_>| {
        it.console().count(": healthy ") + it.console().count(": unhealthy, ") > 0
    };
    // There is no log until something has been flushed: the loader's first commit.
    let has_written = |it: &Machine<'_>| {
        it.writes()
            .is_ok_and(|log| log.entries.len() >= enough.max(1))
    };
    while !has_written(&machine) && !has_verdict(&machine) {
        if !machine.is_on() || began.elapsed() >= WELL {
            bail!("before a further cut the machine went off by itself, or hung");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    machine.lose_power(disk, chance)
}

/// Waits until a version is marked good; gives it. Nobody helps.
fn until_well(
    machine: &mut Machine<'_>,
    life: Life,
    phase: &Phase,
    outcome: &mut Outcome,
) -> Result<String> {
    let verdicts = [": healthy ", ": unhealthy, "];
    let mut line = machine.wait_for_any(&[&verdicts[..], &[RECOVERY_PROMPT]].concat(), WELL)?;
    if line.contains(RECOVERY_PROMPT) {
        if life == Life::Upgrade {
            bail!("the machine is in recovery, with a good slot on its disk");
        }
        outcome.recovered = true;
        line = machine.wait_for_any(&verdicts, WELL)?;
    }
    if !line.contains(": healthy ") {
        bail!("the machine says: {line}");
    }
    machine.wait_for_ssh(machine.boot_limit())?;
    let status = machine.status()?;
    let booted = &status["booted"];
    expect(
        booted["good"] == true,
        "the booted slot marked good",
        &status,
    )?;
    let version = booted["version"].as_str().unwrap_or_default().to_owned();
    expect(
        status["problems"].as_array().is_some_and(Vec::is_empty),
        "a machine without a problem",
        &status["problems"],
    )?;
    let copies = status["record"]["copies"].as_array();
    let is_valid = |copy: &Value| copy.as_str().is_some_and(|it| it.starts_with("valid"));
    expect(
        copies.is_some_and(|copies| copies.len() == 2 && copies.iter().all(is_valid)),
        "two valid copies of the record",
        &status["record"],
    )?;
    if phase.is_before_activation() && version != Version::First.number() {
        bail!("version {version} runs, which was never activated");
    }
    if phase.has_witness {
        let witness = machine.run(&format!("cat {WITNESS}"))?;
        expect(
            witness.trim() == "kept",
            "what was synced on state",
            &witness.into(),
        )?;
    }
    Ok(version)
}
