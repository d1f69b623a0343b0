//! `crash-sim`: cuts the power at every write of everything that Sternpost writes, and looks whether the machine still
//! comes up, by itself, in a slot that is whole.
//!
//! What runs is what runs in the field: the loader's decision (`boot-core`), `bootctl`'s installation, activation,
//! verdicts and repairs, the agent's growth of the partition table; on a disk in memory with slots of a few kilobytes.
//! A recording device keeps every write and every flush (`disk`); from that log come the disks that a cut can leave
//! (`crash`); on each, what must hold is checked (`invariants`) and a machine is started (`machine`) until it rests.
//! docs/reliability.md says what is covered and what is not.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::explore::{Explorer, Tally};
use crate::invariants::Violation;
use crate::path::Path;
use crate::table;
use crate::wrong::Wrong;

/// Cuts the power at every write, and looks whether the machine still starts.
///
/// Tries every listed cut of every step of every history, then cuts by chance until enough disks were tried, and then
/// systems that are wrong on purpose, each of which has to be caught. Ends with one line of totals; fails if an
/// invariant does not hold, or if a wrong system was not caught.
#[derive(Parser)]
#[command(version, name = "crash-sim")]
pub struct Arguments {
    /// How many disks to try at least.
    #[arg(long, default_value_t = 500_000)]
    states: u64,
    /// What the cuts by chance are made of; the same seed tries the same disks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; the disks that are tried depend on their number.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Do again what a violation printed, and tell it.
    #[arg(long, value_name = "PATH")]
    replay: Option<Path>,
    /// The wrong system that the violation was found in.
    #[arg(long, value_name = "NAME", requires = "replay")]
    wrong: Option<String>,
}

/// Tries what `arguments` ask for; whether everything holds.
///
/// # Errors
/// If it could not be tried.
pub fn run(arguments: &Arguments) -> Result<bool> {
    match &arguments.replay {
        Some(path) => replay(path, arguments.wrong.as_deref()),
        None => explore(arguments),
    }
}

fn replay(path: &Path, wrong: Option<&str>) -> Result<bool> {
    let named = |name| {
        let found = Wrong::ALL.into_iter().find(|wrong| wrong.name() == name);
        found.with_context(|| format!("there is no wrong system {name}"))
    };
    let wrong = wrong.map(named).transpose()?;
    let violation = again(&Explorer::new(1, wrong)?, path, wrong, &mut |line| {
        println!("{line}")
    })?;
    match &violation {
        Some(violation) => println!("VIOLATION {violation}"),
        None => println!("everything holds"),
    }
    Ok(violation.is_none())
}

/// Goes the way of `path` again, in the system of `explorer`.
fn again(
    explorer: &Explorer,
    path: &Path,
    wrong: Option<Wrong>,
    tell: &mut dyn FnMut(String),
) -> Result<Option<Violation>> {
    match path.history.as_str() {
        table::NAME => table::replay(path, wrong, tell),
        _ => explorer.replay(path, tell),
    }
}

fn explore(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let threads = arguments.threads.max(1);
    let mut tally = table::explore(arguments.seed, 2, None)?;
    let share = arguments.states.saturating_sub(tally.tried) / threads as u64 + 1;
    let tallies = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || -> Result<Tally> {
                    let seed = arguments
                        .seed
                        .wrapping_mul(1000)
                        .wrapping_add(thread as u64);
                    let mut explorer = Explorer::new(seed, None)?;
                    explorer.listed(thread, threads);
                    explorer.by_chance(share);
                    Ok(explorer.tally)
                })
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Tally>>| {
            worker
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("an explorer panicked")))
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    tallies.into_iter().for_each(|found| tally.add(found));
    for (path, violation) in tally.violations.values() {
        println!("VIOLATION {violation}\n  see it again with --replay {path}");
    }
    let caught = wrong_ones()?;
    println!(
        "crash-sim: {} disks tried, {} different, {} violations, {caught} of {} wrong systems caught, seed {}, {:.1} s",
        tally.tried,
        tally.distinct.len(),
        tally.violated,
        Wrong::ALL.len(),
        arguments.seed,
        (began.elapsed() + Duration::from_millis(50)).as_secs_f64(),
    );
    Ok(tally.violated == 0 && caught == Wrong::ALL.len())
}

/// Tries the systems that are wrong on purpose; how many were caught.
///
/// # Errors
/// If one could not be tried, or the way to a violation does not lead to it again.
fn wrong_ones() -> Result<usize> {
    let mut caught = 0;
    for wrong in Wrong::ALL {
        let mut tally = table::explore(1, 2, Some(wrong))?;
        let mut explorer = Explorer::new(1, Some(wrong))?;
        explorer.listed(0, 1);
        tally.add(std::mem::take(&mut explorer.tally));
        let found = &tally.violations;
        let names: Vec<_> = found.keys().map(|invariant| invariant.name()).collect();
        let by = if names.is_empty() {
            "NOTHING".into()
        } else {
            names.join(", ")
        };
        println!("{:32} caught by {by}", wrong.name());
        for (invariant, (path, _)) in found {
            let violation = again(&explorer, path, Some(wrong), &mut drop)?;
            let seen = violation.is_some_and(|it| it.invariant == *invariant);
            ensure!(
                seen,
                "--wrong {} --replay {path}: not {}",
                wrong.name(),
                invariant.name()
            );
        }
        caught += usize::from(!found.is_empty());
    }
    Ok(caught)
}
