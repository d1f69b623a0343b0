//! `make demo`: an appliance's life, told in an emulated machine with real artefacts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use qemu_tests::artefacts::Artefacts;
use qemu_tests::scenario::{Begins, Context, Scenario};
use qemu_tests::ssh::USER;
use qemu_tests::story::Story;

/// Tells an appliance's story in an emulated machine: first boot, upgrade, an upgrade that is refused.
///
/// Builds image versions 1, 2 and 3 with imager, boots version 1 from its disk image, upgrades it to version 2 over
/// HTTP, and has the health gate refuse version 3. What it made stays in the places that it prints at the end.
#[derive(Parser)]
struct Arguments {
    /// Recipe in recipes/images; `kubeadm` and `minimal` mean their variants for virtual machines.
    #[arg(long, default_value = "kubeadm-vm")]
    recipe: String,
    /// x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// The imager program; without it the one beside this program.
    #[arg(long)]
    imager: Option<PathBuf>,
    /// Where the machine's disk and its logs go.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    match demonstrate(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let scenario = scenario(arguments)?;
    let imager = qemu_tests::imager(arguments.imager.as_deref())?;
    let root = qemu_tests::workspace()
        .canonicalize()
        .context("cannot find the workspace")?;
    let cache = qemu_tests::cache_directory();
    // Keys and images are those of the scenarios: the same recipes, built once.
    let artefacts = Artefacts::open(imager, root, qemu_tests::directory(None))?.with_progress();
    let directory = arguments
        .directory
        .clone()
        .unwrap_or_else(|| cache.join("demo"))
        .join(format!(
            "{}-{}",
            scenario.recipe,
            scenario.architecture.name()
        ));
    println!(
        "Sternpost: {} on {}",
        scenario.recipe,
        scenario.architecture.name()
    );
    let context = Context::new(scenario, directory, artefacts)?;
    let story = Story::new(&context);
    let disk = story.tell()?;
    println!(
        "\n5  All of it took {}. What is left:",
        minutes(began.elapsed())
    );
    look_around(&context, &story, disk.path());
    Ok(())
}

/// What the story is about, as the context of a run.
fn scenario(arguments: &Arguments) -> Result<Scenario> {
    let architecture = qemu_tests::architecture(&arguments.arch)?;
    let recipe = match arguments.recipe.trim_end_matches("-vm") {
        "minimal" => "minimal-vm",
        "kubeadm" => "kubeadm-vm",
        other => bail!("there is no story for the recipe `{other}`; use kubeadm or minimal"),
    };
    Ok(Scenario {
        name: "demo",
        shows: "an appliance's life",
        architecture,
        recipe,
        begins: Begins::PowerOn,
        gate: false,
        seconds: 1800,
        run: |_| Ok(()),
    })
}

/// Where everything is, and how to look at the machine.
fn look_around(context: &Context, story: &Story<'_>, disk: &Path) {
    let artefacts = context.artefacts();
    let architecture = context.scenario().architecture.name();
    println!(
        "   images, bundles, manifests  {}/{}-{architecture}-*",
        artefacts.images().display(),
        context.scenario().recipe,
    );
    println!("   the machine's disk          {}", disk.display());
    println!(
        "   its console                 {}",
        context.file("console.log").display()
    );
    println!("\n   Start it again and look around (it runs version 2; Ctrl-A X ends it):");
    println!(
        "     {} run {} --arch {architecture} --memory {} --ssh 2222",
        artefacts.imager().display(),
        disk.display(),
        story.memory()
    );
    println!(
        "     ssh -i {} -p 2222 {USER}@127.0.0.1",
        artefacts.ssh_key().display()
    );
    println!("     {}", story.command());
}

fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}
