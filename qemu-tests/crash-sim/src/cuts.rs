//! `crash-sim`: cuts the power at every write of everything that Sternpost writes, and looks whether the machine still
//! comes up, by itself, in a slot that is whole.
//!
//! What runs is what runs in the field: the loader's decision (`boot-core`), `bootctl`'s installation, activation,
//! verdicts and repairs, the agent's growth of the partition table; on a disk in memory with slots of a few kilobytes.
//! A recording device keeps every write and every flush (`disk`); from that log come the disks that a cut can leave
//! (`crash`); on each, what must hold is checked (`invariants`) and a machine is started (`machine`) until it rests.
//! docs/reliability.md says what is covered and what is not.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::explore::{Explorer, Tally};
use crate::invariants::{Invariant, Violation};
use crate::path::Path;
use crate::sabotage::Sabotage;
use crate::table;

/// Cuts the power at every write, and looks whether the machine still starts.
///
/// Tries every listed cut of every step of every history, then cuts by chance until enough disks were tried, and then
/// systems that are sabotaged, each of which has to be caught, and among them by every invariant. Ends with one
/// line of totals; fails if an invariant does not hold, or if a sabotaged system was not caught.
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
    /// The sabotaged system that the violation was found in.
    #[arg(long, value_name = "NAME", requires = "replay")]
    sabotage: Option<String>,
}

/// Tries what `arguments` ask for; whether everything holds.
///
/// # Errors
/// If it could not be tried.
pub fn run(arguments: &Arguments) -> Result<bool> {
    match &arguments.replay {
        Some(path) => replay(path, arguments.sabotage.as_deref()),
        None => explore(arguments),
    }
}

fn replay(path: &Path, sabotage: Option<&str>) -> Result<bool> {
    let named = |name| {
        let found = Sabotage::ALL
            .into_iter()
            .find(|sabotage| sabotage.name() == name);
        found.with_context(|| format!("there is no sabotaged system {name}"))
    };
    let sabotage = sabotage.map(named).transpose()?;
    let violation = again(&Explorer::new(1, sabotage)?, path, sabotage, &mut |line| {
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
    sabotage: Option<Sabotage>,
    tell: &mut dyn FnMut(String),
) -> Result<Option<Violation>> {
    match path.history.as_str() {
        table::NAME => table::replay(path, sabotage, tell),
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
                    explorer.listed(thread, threads, &[]);
                    explorer.by_chance(share);
                    Ok(explorer.tally)
                })
            })
            .collect();
        workers.into_iter().map(joined).collect::<Result<Vec<_>>>()
    })?;
    tallies.into_iter().for_each(|found| tally.add(found));
    for (path, violation) in tally.violations.values() {
        println!("VIOLATION {violation}\n  see it again with --replay {path}");
    }
    let caught = sabotaged(threads)?;
    let seen: BTreeSet<Invariant> = caught.iter().flat_map(|it| it.by.clone()).collect();
    let caught = caught.iter().filter(|it| it.is_as_told()).count();
    println!(
        "crash-sim: {} disks tried, {} different, {} violations, {caught} of {} sabotaged systems caught by {} of {} invariants, seed {}, {:.1} s",
        tally.tried,
        tally.distinct.len(),
        tally.violated,
        Sabotage::ALL.len(),
        seen.len(),
        Invariant::ALL.len(),
        arguments.seed,
        (began.elapsed() + Duration::from_millis(50)).as_secs_f64(),
    );
    let proved = caught == Sabotage::ALL.len() && seen.len() == Invariant::ALL.len();
    Ok(tally.violated == 0 && proved)
}

/// A sabotaged system, and which invariants it violates.
struct Caught {
    sabotage: Sabotage,
    by: Vec<Invariant>,
}

impl Caught {
    /// Whether it is caught by all that docs/reliability.md says.
    fn is_as_told(&self) -> bool {
        self.sabotage
            .caught_by()
            .iter()
            .all(|it| self.by.contains(it))
    }
}

/// Tries the systems that are sabotaged.
///
/// # Errors
/// If one could not be tried, or the way to a violation does not lead to it again.
fn sabotaged(threads: usize) -> Result<Vec<Caught>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Caught>> {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let sabotage = numbers.map_while(|number| Sabotage::ALL.get(number));
        sabotage.map(|sabotage| catch(*sabotage)).collect()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let all: Vec<_> = workers.into_iter().map(joined).collect::<Result<_>>()?;
        Ok(all.into_iter().flatten().collect())
    })
}

/// Tries one of them until it is caught by all that it has to be caught by, and each violation once more by its path.
fn catch(sabotage: Sabotage) -> Result<Caught> {
    let mut explorer = Explorer::new(1, Some(sabotage))?;
    let tally = if sabotage.is_about_the_table() {
        table::explore(1, 2, Some(sabotage))?
    } else {
        explorer.listed(0, 1, sabotage.caught_by());
        std::mem::take(&mut explorer.tally)
    };
    for (invariant, (path, _)) in &tally.violations {
        let violation = again(&explorer, path, Some(sabotage), &mut drop)?;
        let seen = violation.is_some_and(|it| it.invariant == *invariant);
        ensure!(
            seen,
            "--sabotage {} --replay {path}: not {}",
            sabotage.name(),
            invariant.name()
        );
    }
    let by: Vec<_> = tally.violations.into_keys().collect();
    let caught = Caught { sabotage, by };
    let names: Vec<_> = caught.by.iter().map(|invariant| invariant.name()).collect();
    let names = names.join(", ");
    match caught.is_as_told() {
        true => println!("{:32} caught by {names}", sabotage.name()),
        false => println!(
            "{:32} NOT caught as it should be, by {names}",
            sabotage.name()
        ),
    }
    Ok(caught)
}

fn joined<T>(worker: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    worker
        .join()
        .unwrap_or_else(|_| Err(anyhow::anyhow!("an explorer panicked")))
}
