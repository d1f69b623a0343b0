//! Lists and runs the scenarios.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use boot_core::Digest;
use clap::Parser;
use libtest_mimic::{Arguments, Failed, Trial};
use qemu_tests::artefacts::{Artefacts, Version};
use qemu_tests::ledger::{Ledger, Run};
use qemu_tests::scenario::{Begins, Context, Scenario};
use qemu_tests::scenarios::ALL;

/// Boots the real artefacts in emulated machines and breaks them on purpose.
///
/// Images are built through imager on first use and kept in the cache. Console logs and disks of what failed are kept
/// under the directory that is printed; --keep keeps those of what passed too. A scenario that begins with a machine that
/// is well gets a copy of one that was saved then, which is made once for each image.
#[derive(Parser)]
struct Options {
    /// Names, or parts of names; without any: all that --gate and --arch leave.
    names: Vec<String>,
    /// List the scenarios: what each shows and how long it takes.
    #[arg(long)]
    list: bool,
    /// Print when each ran last, on what, and how it ended, as a table in Markdown.
    #[arg(long)]
    ledger: bool,
    /// Only those that every change has to pass.
    #[arg(long, conflicts_with = "all")]
    gate: bool,
    /// With those of the gate, others whose turn it is, that have not passed for longest: as many as take so long
    /// together, and at least one.
    #[arg(long, requires = "gate", value_name = "SECONDS")]
    further: Option<u64>,
    /// All, however long.
    #[arg(long)]
    all: bool,
    /// Boot every machine; none begins as a copy of one that was saved when it was well.
    #[arg(long)]
    from_power_on: bool,
    /// Only this architecture.
    #[arg(long)]
    arch: Option<String>,
    /// How many run side by side.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// What is left to chance is made of it: when in a start something goes wrong, which bit of a slot flips.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the files of scenarios that pass.
    #[arg(long)]
    keep: bool,
    /// The imager program.
    #[arg(long)]
    imager: Option<PathBuf>,
    /// Where keys, images and logs are kept.
    #[arg(long)]
    directory: Option<PathBuf>,
}

impl Options {
    fn chosen(&self) -> Vec<&'static Scenario> {
        ALL.iter()
            .filter(|scenario| !self.gate || scenario.gate)
            .filter(|scenario| {
                self.arch
                    .as_ref()
                    .is_none_or(|arch| arch == scenario.architecture.name())
            })
            .filter(|scenario| {
                self.names.is_empty()
                    || self
                        .names
                        .iter()
                        .any(|name| self.is_named(name, scenario.name))
            })
            .collect()
    }

    /// A whole name means that one, even where it is the beginning of another's.
    fn is_named(&self, wanted: &str, name: &str) -> bool {
        if ALL.iter().any(|scenario| scenario.name == wanted) {
            name == wanted
        } else {
            name.contains(wanted)
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut chosen = options.chosen();
    if options.list {
        list(&chosen);
        return ExitCode::SUCCESS;
    }
    let ledger = match Ledger::open(&qemu_tests::directory(options.directory.as_deref())) {
        Ok(ledger) => ledger,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if options.ledger {
        print!("{}", ledger.table(&chosen));
        return ExitCode::SUCCESS;
    }
    if let Some(seconds) = options.further {
        let all: Vec<_> = ALL.iter().collect();
        let further = ledger.in_turn(&all, seconds, options.seed);
        let names: Vec<_> = further.iter().map(|it| it.name).collect();
        println!("in turn: {}", names.join(" "));
        chosen.extend(further);
    }
    if chosen.is_empty() {
        eprintln!(
            "no scenario is named {:?}; --list names them",
            options.names
        );
        return ExitCode::from(2);
    }
    match run(&options, &chosen, ledger) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn list(scenarios: &[&Scenario]) {
    let width = scenarios
        .iter()
        .map(|scenario| scenario.name.len())
        .max()
        .unwrap_or(0);
    for scenario in scenarios {
        println!(
            "{:width$}  {:7}  {:>4} s  {:4}  {:4}  {}",
            scenario.name,
            scenario.architecture.name(),
            scenario.seconds,
            if scenario.gate { "gate" } else { "" },
            match scenario.begins {
                Begins::PowerOn => "",
                Begins::Well => "well",
            },
            scenario.shows
        );
    }
    let gate: Vec<_> = scenarios.iter().filter(|scenario| scenario.gate).collect();
    let minutes = |scenarios: &mut dyn Iterator<Item = u64>| scenarios.sum::<u64>().div_ceil(60);
    println!(
        "{} scenarios, {} minutes; {} in the gate, {} minutes (one after another, images built)",
        scenarios.len(),
        minutes(&mut scenarios.iter().map(|scenario| scenario.seconds)),
        gate.len(),
        minutes(&mut gate.iter().map(|scenario| scenario.seconds)),
    );
}

fn run(options: &Options, chosen: &[&'static Scenario], ledger: Ledger) -> Result<ExitCode> {
    let directory = qemu_tests::directory(options.directory.as_deref());
    let root = qemu_tests::workspace();
    let imager = qemu_tests::imager(options.imager.as_deref())?;
    let (seed, keep) = (options.seed, options.keep);
    let (hurried, from_power_on) = (options.gate, options.from_power_on);
    let ledger = Arc::new(ledger);
    let began = Instant::now();
    // Opened by the first scenario that runs, so that a failure is that scenario's failure.
    let artefacts: Arc<OnceLock<Result<Artefacts, String>>> = Arc::default();
    let host: Arc<RwLock<()>> = Arc::default();
    // The longest first, so that none of them is left to run alone at the end.
    let mut chosen = chosen.to_vec();
    chosen.sort_by_key(|scenario| std::cmp::Reverse(scenario.seconds));
    let trials = chosen.iter().map(|scenario| {
        let (scenario, directory, root, imager) =
            (**scenario, directory.clone(), root.clone(), imager.clone());
        let (artefacts, ledger) = (Arc::clone(&artefacts), Arc::clone(&ledger));
        let host = Arc::clone(&host);
        Trial::test(scenario.name, move || {
            let artefacts = artefacts
                .get_or_init(|| {
                    Artefacts::open(imager, root, directory.clone())
                        .map_err(|error| format!("{error:#}"))
                })
                .as_ref()
                .map_err(|error| Failed::from(error.clone()))?;
            let files = directory.join("runs").join(scenario.name);
            Context::new(scenario, files, artefacts.clone())
                .map(|context| context.seeded(seed).hurried(hurried))
                .map(|context| context.from_power_on(from_power_on))
                .and_then(|context| one(&context, &host, seed, &ledger, keep))
                .map_err(|error| Failed::from(format!("{error:#}")))
        })
        .with_kind(scenario.architecture.name())
    });
    let arguments = Arguments {
        test_threads: Some(options.jobs.max(1)),
        ..Arguments::default()
    };
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    println!(
        "scenarios: {} passed, {} failed, seed {}, {} s",
        conclusion.num_passed,
        conclusion.num_failed,
        options.seed,
        began.elapsed().as_secs()
    );
    Ok(if conclusion.has_failed() {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

/// What a scenario does, beside others, or alone on the host if it needs that. Its first image is built beside others.
fn with_its_share(host: &RwLock<()>, context: &Context) -> Result<()> {
    let scenario = context.scenario();
    let beside = host.read().unwrap_or_else(PoisonError::into_inner);
    if !scenario.needs_the_host() {
        return (scenario.run)(context);
    }
    context.image(Version::First)?;
    drop(beside);
    let _alone = host.write().unwrap_or_else(PoisonError::into_inner);
    (scenario.run)(context)
}

/// One run: its files stay if it fails or `keep` says so, its console logs always.
fn one(context: &Context, host: &RwLock<()>, seed: u64, ledger: &Ledger, keep: bool) -> Result<()> {
    let (scenario, files) = (context.scenario(), context.directory());
    let began = Instant::now();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        with_its_share(host, context)
    }))
    .unwrap_or_else(|_| Err(anyhow!("the scenario's own code panicked")));
    // With the building of its images, if they were not there.
    let seconds = began.elapsed().as_secs();
    eprintln!("{}: {seconds} s", scenario.name);
    ledger.add(&Run {
        scenario: scenario.name.to_owned(),
        inputs: inputs(context)?,
        passed: result.is_ok(),
        seed,
        seconds,
        time: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    })?;
    match result {
        Ok(()) if keep => Ok(()),
        Ok(()) => remove_disks(files),
        Err(error) => {
            // Beside the console log, and at once: the list of failures comes when all scenarios have ended.
            let _ = std::fs::write(files.join("failure.log"), format!("{error:#}\n"));
            Err(error.context(format!(
                "{} failed; its files are in {}",
                scenario.name,
                files.display()
            )))
        }
    }
}

/// What it ran on: the image that it began with, where there is one, and this program.
fn inputs(context: &Context) -> Result<String> {
    let image = context.image(Version::First).and_then(|it| it.manifest());
    let program = std::fs::read(std::env::current_exe()?)?;
    let digest = Digest::of(&[image.unwrap_or_default(), program].concat());
    Ok(format!("{:.12}", digest.to_string()))
}

/// Leaves the logs and removes what is large.
fn remove_disks(files: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(files)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "log") && path.is_file() {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
