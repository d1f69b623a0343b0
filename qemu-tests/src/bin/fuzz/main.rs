//! Builds and runs the fuzz targets of qemu-tests/fuzz, and adds up.
//!
//! The targets are libFuzzer's, one program each, and can be run by hand or by `cargo fuzz` as well. What belongs to a
//! target is in the manifest of that crate: its number of runs where none is asked for, and folders of seeds. Seeds of
//! its own are in seeds/NAME.hex, one a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use qemu_tests::{cache_directory, workspace};
use serde::Deserialize;

/// The longest seed that is added to the repository, and how many a target has there.
const SEED_MAX: u64 = 512;
const SEEDS_MAX: usize = 24;

/// Feeds every parser of what comes from a disk, the network or a person with what a fuzzer thinks of.
///
/// Without --seconds each target gets the number of runs that its manifest says, from the same seeds each time. With it,
/// what was learnt is kept in the cache and used the next time. Ends with one line of totals; fails if a target crashed.
#[derive(Parser)]
struct Options {
    /// For so long, all targets together.
    #[arg(long)]
    seconds: Option<u64>,
    /// What the fuzzer's choices are made of.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// This target alone.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// How many run side by side; as many as there are processors without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// Do again with these bytes what a target crashed with.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
    /// Add to the seeds of the repository from what is in the cache.
    #[arg(long, conflicts_with_all = ["seconds", "input"])]
    distil: bool,
}

/// What of the manifest of qemu-tests/fuzz is of use here.
#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    targets: BTreeMap<String, Target>,
}

#[derive(Deserialize)]
struct Target {
    /// Runs where no time is given.
    runs: u64,
    /// Folders of seeds, from the workspace's.
    #[serde(default)]
    seeds: Vec<PathBuf>,
}

/// What a target did.
struct Outcome {
    runs: u64,
    crashed: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let folder = workspace().join("qemu-tests/fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
    let mut targets = toml::from_str::<Manifest>(&manifest)?
        .package
        .metadata
        .targets;
    if let Some(name) = &options.target {
        let names: Vec<_> = targets.keys().cloned().collect();
        targets.retain(|target, _| target == name);
        ensure!(
            !targets.is_empty(),
            "there is no target {name}; there are {}",
            names.join(", ")
        );
    }
    let programs = build(&folder, targets.keys())?;
    if let (Some(input), Some(name)) = (&options.input, &options.target) {
        return Ok(Command::new(programs.join(name))
            .arg(input)
            .status()?
            .success());
    }
    let began = Instant::now();
    let jobs = match options.jobs {
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism()?.get(),
    };
    let fuzzer = Fuzzer {
        options,
        folder,
        programs,
        kept: cache_directory().join("fuzz"),
        each: options.seconds.map(|seconds| {
            (seconds * jobs.min(targets.len()) as u64 / targets.len() as u64).max(1)
        }),
    };
    if options.distil {
        for name in targets.keys() {
            fuzzer.distil(name)?;
        }
        return Ok(true);
    }
    let count = targets.len();
    let waiting = Mutex::new(targets.into_iter());
    let next = || waiting.lock().ok()?.next();
    let outcomes = std::thread::scope(|scope| {
        let worker = || -> Result<Vec<Outcome>> {
            std::iter::from_fn(next)
                .map(|(name, target)| fuzzer.fuzz(&name, &target))
                .collect()
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(worker)).collect();
        let join =
            |worker: std::thread::ScopedJoinHandle<'_, Result<Vec<Outcome>>>| match worker.join() {
                Ok(outcomes) => outcomes,
                Err(_) => bail!("a worker panicked"),
            };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    let crashes = outcomes.iter().filter(|it| it.crashed).count();
    println!(
        "fuzz: {count} targets, {} runs, {crashes} crashes, seed {}, {:.1} s",
        outcomes.iter().map(|it| it.runs).sum::<u64>(),
        options.seed,
        began.elapsed().as_secs_f64(),
    );
    Ok(crashes == 0)
}

/// Builds targets; where they are then.
fn build<'a>(folder: &Path, names: impl Iterator<Item = &'a String>) -> Result<PathBuf> {
    let output = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), PathBuf::from);
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // Flags from outside would take the place of those in .cargo/config.toml, by which the fuzzer sees where it gets.
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--target",
            &host,
        ])
        .args(names.flat_map(|name| ["--bin", name.as_str()]))
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", &output)
        .env_remove("RUSTFLAGS")
        .status()
        .context("cargo cannot be run")?;
    ensure!(built.success(), "the fuzz targets cannot be built");
    Ok(output.join(host).join("release"))
}

struct Fuzzer<'a> {
    options: &'a Options,
    folder: PathBuf,
    programs: PathBuf,
    /// What was learnt, in a folder for each target, and what was run.
    kept: PathBuf,
    /// Seconds for each target; without, its number of runs.
    each: Option<u64>,
}

impl Fuzzer<'_> {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        // The server that answers to one of them is here, not behind a proxy.
        for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        command
    }

    fn fuzz(&self, name: &str, target: &Target) -> Result<Outcome> {
        let scratch = tempfile::tempdir()?;
        let (learnt, length) = match self.each {
            Some(seconds) => (self.kept.join(name), format!("-max_total_time={seconds}")),
            None => (
                scratch.path().join("learnt"),
                format!("-runs={}", target.runs),
            ),
        };
        let seeds = scratch.path().join("seeds");
        let crashes = self.kept.join("crashes");
        for folder in [&learnt, &seeds, &crashes] {
            fs::create_dir_all(folder)?;
        }
        self.unpack(name, &seeds)?;
        let log = self.kept.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let status = self
            .command(name)
            .args([length.as_str(), "-print_final_stats=1", "-timeout=30"])
            .arg(format!("-seed={}", self.options.seed))
            .arg(format!("-artifact_prefix={}/{name}-", crashes.display()))
            .args([&learnt, &seeds])
            .args(target.seeds.iter().map(|seeds| workspace().join(seeds)))
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .with_context(|| format!("{name} cannot be run"))?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let stat = |key: &str| said.lines().rev().find_map(|line| line.strip_prefix(key));
        let runs = stat("stat::number_of_executed_units:")
            .and_then(|runs| runs.trim().parse().ok())
            .unwrap_or(0);
        let in_all = self.count(name, runs)?;
        println!("{name:16} {runs:>10} runs, {in_all} in all");
        let crashed = !status.success();
        if crashed {
            let why: Vec<_> = said
                .lines()
                .skip_while(|line| {
                    !line.contains("panicked at") && !line.contains("ERROR: libFuzzer")
                })
                .take(2)
                .collect();
            println!("CRASH of {name}: {}", why.join(" "));
            println!("  all that it said: {}", log.display());
            if let Some((_, input)) = said.split_once("Test unit written to ") {
                let input = input.lines().next().unwrap_or_default();
                println!("  see it again with make fuzz TARGET={name} INPUT={input}");
            }
        }
        Ok(Outcome { runs, crashed })
    }

    /// Adds to the runs that a target has had; all of them.
    fn count(&self, name: &str, runs: u64) -> Result<u64> {
        let path = self.kept.join(format!("{name}.runs"));
        let before = fs::read_to_string(&path).ok();
        let before: u64 = before.and_then(|it| it.trim().parse().ok()).unwrap_or(0);
        fs::write(path, format!("{}\n", before + runs))?;
        Ok(before + runs)
    }

    fn seeds(&self, name: &str) -> PathBuf {
        self.folder.join("seeds").join(format!("{name}.hex"))
    }

    /// The target's own seeds, each into a file.
    fn unpack(&self, name: &str, to: &Path) -> Result<()> {
        let path = self.seeds(name);
        if !path.exists() {
            return Ok(());
        }
        for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
            let seed =
                hex::decode(line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
            fs::write(to.join(number.to_string()), seed)?;
        }
        Ok(())
    }

    /// Adds to the target's own seeds of what it has learnt: short and long ones, of the fewest that reach everything.
    fn distil(&self, name: &str) -> Result<()> {
        let (learnt, best) = (self.kept.join(name), tempfile::tempdir()?);
        fs::create_dir_all(&learnt)?;
        let merged = self
            .command(name)
            .args(["-set_cover_merge=1", "-merge=1"])
            .args([best.path(), learnt.as_path()])
            .output()?;
        ensure!(
            merged.status.success(),
            "{name} cannot merge {}",
            learnt.display()
        );
        let mut found = Vec::new();
        for file in fs::read_dir(best.path())? {
            let file = file?;
            if (1..=SEED_MAX).contains(&file.metadata()?.len()) {
                found.push(hex::encode(fs::read(file.path())?));
            }
        }
        found.sort_by_key(|seed| (seed.len(), seed.clone()));
        let mut seeds = fs::read_to_string(self.seeds(name)).unwrap_or_default();
        let room = SEEDS_MAX.saturating_sub(seeds.lines().count()).max(1);
        let spread = found.iter().step_by(found.len().div_ceil(room).max(1));
        spread.for_each(|seed| seeds += &format!("{seed}\n"));
        fs::write(self.seeds(name), &seeds)?;
        println!("{name:16} {:>10} seeds", seeds.lines().count());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
