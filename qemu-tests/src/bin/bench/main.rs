//! `make bench`: the figures of docs/performance.md.
//!
//! Every time is taken outside the machine, from when a line comes out of its serial console, so that Sternpost and the
//! peer that it is compared with (systemd-boot and dracut on the same kernel, root and machine) are measured alike.

mod boots;
mod inside;
mod picture;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use qemu_tests::artefacts::{Artefacts, Image, Version};
use qemu_tests::scenario::Architecture;

use boots::{Boot, Phase};

/// Measures boots and sizes, and prints them as the tables of docs/performance.md.
///
/// Without a part, all of them; the Kubernetes ones take by far the longest.
#[derive(Parser)]
struct Arguments {
    /// What to measure.
    parts: Vec<Part>,
    /// Boots of each kind; the medians are printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Write the timelines as pictures into this directory.
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// The imager program; without it the one beside this program.
    #[arg(long)]
    imager: Option<PathBuf>,
}

/// A part of what can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bundles, UKI, initramfs.
    Sizes,
    /// The phases of a boot, beside systemd-boot with a dracut initramfs.
    Boot,
    /// Peak memory of `bootctl install` in the machine.
    Memory,
    /// Kernel start to node Ready, x86_64.
    Kubernetes,
    /// Kernel start to node Ready, ARM64.
    KubernetesArm64,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let imager = qemu_tests::imager(arguments.imager.as_deref())?;
    let root = qemu_tests::workspace()
        .canonicalize()
        .context("cannot find the workspace")?;
    let bench = Bench {
        artefacts: Artefacts::open(imager, root.clone(), qemu_tests::directory(None))?,
        root,
        directory: qemu_tests::cache_directory().join("bench"),
        runs: arguments.runs.max(1),
    };
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let pictures = arguments.pictures.as_deref();
    if wanted(Part::Sizes) {
        bench.sizes()?;
    }
    if wanted(Part::Boot) {
        bench.boots(pictures)?;
    }
    if wanted(Part::Memory) {
        bench.memory()?;
    }
    if wanted(Part::Kubernetes) {
        bench.kubernetes(Architecture::X86_64, pictures)?;
    }
    if wanted(Part::KubernetesArm64) {
        bench.kubernetes(Architecture::Aarch64, pictures)?;
    }
    Ok(())
}

/// What all parts share.
struct Bench {
    artefacts: Artefacts,
    root: PathBuf,
    /// Disks and logs.
    directory: PathBuf,
    runs: usize,
}

impl Bench {
    fn sizes(&self) -> Result<()> {
        println!(
            "\nSizes, x86_64\n\n| image | bundle | UKI | initramfs |\n| --- | --- | --- | --- |"
        );
        for recipe in ["minimal-vm", "kubeadm-vm"] {
            let image = self
                .artefacts
                .recipe(recipe, Architecture::X86_64, Version::First, 512)?;
            println!("| {recipe} | {} |", sizes(&image)?.join(" | "));
        }
        Ok(())
    }

    fn boots(&self, pictures: Option<&Path>) -> Result<()> {
        let image =
            self.artefacts
                .recipe("minimal-vm", Architecture::X86_64, Version::First, 512)?;
        let imager = self.artefacts.imager();
        let peer = build_peer(imager, &self.root, &image, &self.directory)?;
        println!("\nBoots of minimal-vm, x86_64, medians of {}\n", self.runs);
        let ours = boots::median(imager, &image.disk(), Boot::Sternpost, self.runs)?;
        let theirs = boots::median(imager, &peer, Boot::Peer, self.runs)?;
        let ratio = boots::to_switch_root(&ours.phases) / boots::to_switch_root(&theirs.phases);
        let columns = [
            ("Sternpost", ours.phases),
            ("systemd-boot + dracut", theirs.phases),
        ];
        table(&columns);
        println!("\nfrom the loader's start to switch-root: {ratio:.2} of the peer\n");
        println!("| by the programs' own clocks | |\n| --- | --- |");
        for own in &ours.own_words {
            println!("| {} | {:.2} s |", own.name, own.seconds);
        }
        if let Some(directory) = pictures {
            picture::write(&directory.join("boot.svg"), &columns)?;
        }
        Ok(())
    }
}

/// The sizes that have limits: bundle, UKI, initramfs.
fn sizes(image: &Image) -> Result<[String; 3]> {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let file = |name: &str| -> Result<u64> {
        let path = image.directory().join(name);
        Ok(std::fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len())
    };
    let initramfs = section(&image.directory().join("uki.efi"), ".initrd")?;
    Ok([file("bundle.spb")?, file("uki.efi")?, initramfs].map(megabytes))
}

/// The length of a section of a UKI.
fn section(uki: &Path, name: &str) -> Result<u64> {
    use object::{Object as _, ObjectSection as _};
    let bytes = std::fs::read(uki).with_context(|| format!("cannot read {}", uki.display()))?;
    let file = object::File::parse(&*bytes)
        .with_context(|| format!("{} is no UEFI program", uki.display()))?;
    let found = file
        .section_by_name(name)
        .with_context(|| format!("{} has no {name}", uki.display()))?;
    Ok(found.size())
}

/// Builds the peer's disk beside ours; kept until our image changes.
fn build_peer(imager: &Path, root: &Path, image: &Image, directory: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let made_for = directory.join("peer.manifest");
    let disk = directory.join("peer.raw");
    let manifest = image.manifest()?;
    if disk.exists() && std::fs::read(&made_for).is_ok_and(|made| made == manifest) {
        return Ok(disk);
    }
    let status = Command::new(root.join("qemu-tests/peer/build"))
        .arg(imager)
        .arg(image.directory())
        .arg(&disk)
        .status()
        .context("cannot run qemu-tests/peer/build")?;
    if !status.success() {
        bail!("qemu-tests/peer/build failed ({status}); it needs root and mmdebstrap");
    }
    std::fs::write(&made_for, manifest).context("cannot write beside the peer's disk")?;
    Ok(disk)
}

/// Phases as rows, systems as columns, seconds.
fn table(columns: &[(&str, Vec<Phase>)]) {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    println!("| phase | {} |", names.join(" | "));
    println!("| --- |{}", " --- |".repeat(columns.len()));
    for (row, phase) in columns
        .first()
        .map(|(_, phases)| phases)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, phases)| {
                phases
                    .get(row)
                    .map_or_else(String::new, |phase| format!("{:.2} s", phase.seconds))
            })
            .collect();
        println!("| {} | {} |", phase.name, cells.join(" | "));
    }
}
