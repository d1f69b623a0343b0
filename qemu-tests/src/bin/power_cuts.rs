//! `make power-cuts`: cuts the power of emulated machines at random moments of their lives.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use qemu_tests::artefacts::{Artefacts, Version};
use qemu_tests::cuts::cut;
use qemu_tests::cuts::life::{self, Life, Recorded};
use qemu_tests::cuts::results::{Outcome, Results, table};
use qemu_tests::scenario::{Begins, Context, Scenario};

/// Cuts the power of emulated machines at random moments of their lives, and starts them until they are well.
///
/// The disk of a machine that is cut loses, reorders or tears what was not flushed. Each seed is one cut: of a first
/// boot, an installation, an activation, the boot after it, or recovery; one in three is cut again while it comes up.
/// What became of a seed is kept, so that the same command goes on where it was interrupted, and a larger --cuts adds to
/// what was done. Ends with a table and one line of totals; fails if a machine was not well by itself.
#[derive(Parser)]
struct Arguments {
    /// How many cuts.
    #[arg(long, default_value_t = 200)]
    cuts: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Cut those again that ended well before.
    #[arg(long)]
    again: bool,
    /// How many machines run side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// The imager program.
    #[arg(long)]
    imager: Option<PathBuf>,
    /// Where keys, images, recordings and results are kept.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    match campaign(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn campaign(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let directory = qemu_tests::directory(arguments.directory.as_deref());
    let imager = qemu_tests::imager(arguments.imager.as_deref())?;
    let artefacts = Artefacts::open(imager, qemu_tests::workspace(), directory.clone())?;
    let scenario = scenario(&arguments.arch)?;
    let context = Context::new(
        scenario,
        directory.join("runs/power-cuts"),
        artefacts.clone(),
    )?;
    let kept = directory.join("power-cuts").join(name(&context)?);
    let server = life::server(&context, &kept)?;
    let record = |life: Life| -> Result<Recorded> {
        let files = directory.join(format!("runs/power-cuts-{}", life.name()));
        let context = Context::new(scenario, files, artefacts.clone())?;
        life.recorded(&context, &kept, &server)
    };
    let lives = side_by_side(Life::ALL.map(|life| move || record(life)))?;
    let results = Results::open(&kept.join("results.jsonl"))?;
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.cuts);
    let next = AtomicU64::new(seeds.start);
    let lane = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return Ok(());
            }
            if !arguments.again && results.is_well(seed) {
                continue;
            }
            let files = directory.join(format!("runs/power-cut-{seed}"));
            let outcome = one(seed, &lives, &files, scenario, &artefacts)?;
            println!("{}", line(&outcome, &files));
            results.add(outcome)?;
        }
    };
    side_by_side((0..arguments.jobs.max(1)).map(|_| &lane))?;
    let outcomes: Vec<Outcome> = seeds.clone().filter_map(|seed| results.of(seed)).collect();
    let failed = outcomes.iter().filter(|it| it.version.is_none()).count();
    let further: usize = outcomes.iter().map(|it| it.further.len()).sum();
    print!("\n{}\n", table(&outcomes));
    println!(
        "power-cuts: {} cuts and {further} further ones, {failed} failed, seeds {} to {}, {} s; results in {}",
        outcomes.len(),
        seeds.start,
        seeds.end.saturating_sub(1),
        began.elapsed().as_secs(),
        results.path().display()
    );
    Ok(failed == 0)
}

/// Does all of them at once; what each of them gives, in their order.
fn side_by_side<T: Send, F: FnOnce() -> Result<T> + Send>(
    all: impl IntoIterator<Item = F>,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = all.into_iter().map(|one| scope.spawn(one)).collect();
        let joined = running.into_iter().map(|one| {
            one.join()
                .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        });
        joined.collect()
    })
}

fn one(
    seed: u64,
    lives: &[Recorded],
    files: &Path,
    scenario: Scenario,
    artefacts: &Artefacts,
) -> Result<Outcome> {
    let context = Context::new(scenario, files.to_owned(), artefacts.clone())?;
    let outcome = cut::try_seed(seed, lives, &context)?;
    if outcome.version.is_some() {
        std::fs::remove_dir_all(files)
            .with_context(|| format!("cannot remove {}", files.display()))?;
    }
    Ok(outcome)
}

/// One line for a person who watches.
fn line(outcome: &Outcome, files: &Path) -> String {
    let end = match (&outcome.version, &outcome.error) {
        (Some(version), _) => format!("{version} is well"),
        (None, error) => format!(
            "FAILED: {} (files in {})",
            error.as_deref().unwrap_or_default(),
            files.display()
        ),
    };
    format!(
        "{:>5}  {}, entry {}: {}; {} further cuts; {} starts, {} s: {end}",
        outcome.seed,
        outcome.phase,
        outcome.at,
        outcome.loss,
        outcome.further.len(),
        outcome.starts,
        outcome.seconds,
    )
}

fn scenario(architecture: &str) -> Result<Scenario> {
    Ok(Scenario {
        name: "power-cuts",
        shows: "a machine whose power is cut is well again by itself",
        architecture: qemu_tests::architecture(architecture)?,
        recipe: "minimal-vm",
        begins: Begins::PowerOn,
        gate: false,
        seconds: 300,
        run: |_| Ok(()),
    })
}

/// Names the pair of images: other images have other lives, and other results.
fn name(context: &Context) -> Result<String> {
    let digests =
        [Version::First, Version::Second].map(|version| context.image(version)?.manifest_digest());
    let [first, second] = digests;
    Ok(format!(
        "{}-{:.8}-{:.8}",
        context.scenario().architecture.name(),
        first?.to_string(),
        second?.to_string()
    ))
}
