//! `corruption`: damages every region of a disk in every way, and looks what comes of it.
//!
//! [`table`] says what is to come of each. A cell is run on a machine in the middle of its life ([`appliance`]), damaged
//! where its region lies ([`place`]) and started until it rests ([`start`]), with the code that runs in the field;
//! [`judge`] compares. What only the kernel, e2fsck or firmware decides is said so in the table, and shown by scenarios
//! in emulated machines: `make corruption` runs both. docs/reliability.md has the table in words.

mod appliance;
mod judge;
mod place;
mod start;
mod table;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use self::appliance::Appliance;
use self::judge::Wrong;
use self::table::{Cell, Outcome};
use crate::explore::SECTORS;
use crate::random::Random;
use crate::world::World;

/// Damages every region of a disk in every way, and looks what comes of it.
///
/// A cell is a machine, a region and a damage: `both-good/first-slot-uki/flipped-bit` is a machine with two good slots,
/// in which one bit of the UKI that starts next is another. Each cell is run several times, the bits and bytes chosen by
/// the seed, on sectors of 512 and of 4096 bytes. What is to come of it stands in a table (--table); anything else is a
/// violation, and is printed with the way to run that cell alone.
///
/// `corruption --cell both-good/first-slot-root` runs all cells whose names contain that, and --tell what the machine
/// says meanwhile.
#[derive(Parser)]
#[command(version, name = "corruption")]
pub struct Arguments {
    /// What bits and bytes are chosen by; the same seed does the same damage.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each cell is run on each sector size.
    #[arg(long, default_value_t = 4)]
    variants: u64,
    /// Only the cells whose names contain this.
    #[arg(long, value_name = "NAME")]
    cell: Option<String>,
    /// Print what the machine says.
    #[arg(long)]
    tell: bool,
    /// Print totals and violations as JSON.
    #[arg(long)]
    json: bool,
    /// Print what is to come of each cell, as Markdown, and run nothing.
    #[arg(long, conflicts_with = "scenarios")]
    table: bool,
    /// Print the names of the scenarios that show the rest in emulated machines, and run nothing.
    #[arg(long)]
    scenarios: bool,
}

/// The scenarios that show one of each kind of outcome on real firmware and kernels.
const SCENARIOS: &[&str] = &[
    "uki-with-a-flipped-bit",
    "root-with-a-flipped-bit",
    "root-rots-while-running",
    "slot-header-of-the-other-slot",
    "manifest-by-a-wrong-key",
    "first-esp-destroyed",
    "primary-table-destroyed",
    "newest-copy-of-the-record-destroyed",
    "both-roots-rot-ends-in-recovery",
    "both-copies-of-the-record-destroyed",
    "both-slots-bad-ends-in-recovery",
];

/// What was run.
#[derive(Default)]
struct Tally {
    cells: u64,
    machines: u64,
    starts: u64,
    wrong: Vec<(String, u32, u64, Wrong)>,
}

/// Runs what `arguments` ask for; whether everything came out as it is to.
///
/// # Errors
/// If it could not be tried.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.table {
        print!("{}", table::markdown());
        return Ok(true);
    }
    if arguments.scenarios {
        println!("{}", SCENARIOS.join("\n"));
        return Ok(true);
    }
    let began = Instant::now();
    let tallies = std::thread::scope(|scope| {
        let workers: Vec<_> = SECTORS
            .into_iter()
            .map(|sector| scope.spawn(move || matrix(arguments, sector)))
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Result<Tally>>| {
            let died = || Err(anyhow::anyhow!("a thread panicked"));
            worker.join().unwrap_or_else(|_| died())
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let mut all = Tally::default();
    for tally in tallies {
        all.cells = all.cells.max(tally.cells);
        all.machines += tally.machines;
        all.starts += tally.starts;
        all.wrong.extend(tally.wrong);
    }
    if all.cells == 0 {
        bail!("no cell is named so; --table names them");
    }
    report(arguments, &all, began.elapsed());
    Ok(all.wrong.is_empty())
}

fn report(arguments: &Arguments, all: &Tally, took: Duration) {
    let Tally {
        cells,
        machines,
        starts,
        wrong,
    } = all;
    let (seed, seconds) = (arguments.seed, took.as_millis() as f64 / 1000.0);
    if arguments.json {
        let violations: Vec<_> = wrong
            .iter()
            .map(|(cell, sector, variant, wrong)| {
                serde_json::json!({
                    "cell": cell, "sector": sector, "variant": variant,
                    "expected": wrong.expected.words(), "found": wrong.found,
                })
            })
            .collect();
        let totals = serde_json::json!({
            "cells": cells, "machines": machines, "starts": starts, "seed": seed,
            "seconds": seconds, "violations": violations,
        });
        println!("{totals}");
        return;
    }
    for (cell, sector, variant, wrong) in wrong {
        println!(
            "VIOLATION {cell} on sectors of {sector}, variant {variant}: expected \"{}\", found: {}",
            wrong.expected.words(),
            wrong.found
        );
        println!("  see it again with: corruption --cell {cell} --seed {seed} --tell");
    }
    println!(
        "corruption: {cells} cells, {machines} machines, {starts} starts, {} violations, seed {seed}, {seconds:.1} s",
        wrong.len()
    );
}

/// All cells, on one sector size.
fn matrix(arguments: &Arguments, sector: u32) -> Result<Tally> {
    let world = appliance::world()?;
    let machines = appliance::lived(&world, sector)?;
    let mut tally = Tally::default();
    for cell in table::cells() {
        let name = cell.to_string();
        let wanted = arguments.cell.as_ref();
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let machine = machines.iter().find(|(it, _)| *it == cell.situation);
        let (_, machine) = machine.context("no such situation")?;
        tally.cells += u64::from(cell.expected != Outcome::None);
        for variant in 0..arguments.variants {
            let mut hasher = DefaultHasher::new();
            (arguments.seed, &name, sector, variant).hash(&mut hasher);
            let mut random = Random::new(hasher.finish());
            one(arguments, &world, machine, cell, &mut random, &mut tally)
                .with_context(|| name.clone())?
                .into_iter()
                .for_each(|wrong| tally.wrong.push((name.clone(), sector, variant, wrong)));
        }
    }
    Ok(tally)
}

/// One damage, and what comes of it; what is wrong with that.
fn one(
    arguments: &Arguments,
    world: &World,
    machine: &Appliance,
    cell: Cell,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<Vec<Wrong>> {
    // Damage by chance may change nothing: zeros that were zeros before.
    let mut damaged = None;
    for _ in 0..16 {
        damaged = machine.damaged(cell.region, cell.damage, random)?;
        if damaged.is_some() {
            break;
        }
    }
    let Some(damaged) = damaged else {
        let found = (cell.expected != Outcome::None).then(|| Wrong {
            expected: cell.expected,
            found: "the damage changes nothing".into(),
        });
        return Ok(found.into_iter().collect());
    };
    let runs = judge::runs(world, machine, cell, &damaged);
    if arguments.tell {
        for run in &runs {
            println!("{cell}: {:?}\n{}", run.rest, run.told);
        }
    }
    tally.machines += runs.len() as u64;
    tally.starts += runs.iter().map(|run| run.starts as u64).sum::<u64>();
    Ok(runs.into_iter().filter_map(|run| run.wrong).collect())
}

#[cfg(test)]
mod tests;
