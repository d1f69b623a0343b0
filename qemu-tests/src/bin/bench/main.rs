//! `make bench`: the figures of docs/performance.md.
//!
//! Every time is taken outside the machine, from when a line comes out of its serial console, so that Sternpost and the
//! peer that it is compared with (systemd-boot and dracut on the same kernel, root and machine) are measured alike.

mod boots;
mod picture;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use qemu_tests::artefacts::{Artefacts, Image, Version};
use qemu_tests::scenario::Architecture;

use boots::{Boot, Phase};

/// Measures boots and sizes, and prints them as the tables of docs/performance.md.
#[derive(Parser)]
struct Arguments {
    /// Boots of each kind; the medians are printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Leave out the comparison with systemd-boot and dracut.
    #[arg(long)]
    no_peer: bool,
    /// Write the timeline as a picture to this file.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// The imager program; without it the one beside this program.
    #[arg(long)]
    imager: Option<PathBuf>,
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
    let imager = match &arguments.imager {
        Some(imager) => imager.clone(),
        None => std::env::current_exe()
            .context("cannot find this program's directory")?
            .with_file_name("imager"),
    };
    let root = qemu_tests::workspace()
        .canonicalize()
        .context("cannot find the workspace")?;
    let directory = qemu_tests::cache_directory().join("bench");
    let artefacts = Artefacts::open(imager.clone(), root.clone(), directory.clone())?;
    let image = artefacts.image(Architecture::X86_64, Version::First, 512)?;

    println!("Sizes of minimal-vm, x86_64\n");
    sizes(&image)?;

    println!(
        "\nBoots of minimal-vm, x86_64, medians of {}\n",
        arguments.runs
    );
    let ours = boots::median(&imager, &image.disk(), Boot::Sternpost, arguments.runs)?;
    let mut columns = vec![("Sternpost", ours)];
    if !arguments.no_peer {
        let peer = build_peer(&imager, &root, &image, &directory)?;
        columns.push((
            "systemd-boot + dracut",
            boots::median(&imager, &peer, Boot::Peer, arguments.runs)?,
        ));
    }
    table(&columns);
    if let [(_, ours), (_, peer)] = columns.as_slice() {
        let ratio = boots::to_switch_root(ours) / boots::to_switch_root(peer);
        println!("\nfrom the loader's start to switch-root: {ratio:.2} of the peer");
    }
    if let Some(path) = &arguments.picture {
        std::fs::write(path, picture::draw(&columns))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Prints the sizes that have limits.
fn sizes(image: &Image) -> Result<()> {
    let mib = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let file = |name: &str| -> Result<u64> {
        let path = image.directory().join(name);
        Ok(std::fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len())
    };
    println!("| what | size |\n| --- | --- |");
    println!("| bundle | {} |", mib(file("bundle.spb")?));
    println!("| UKI | {} |", mib(file("uki.efi")?));
    println!(
        "| initramfs | {} |",
        mib(section(&image.directory().join("uki.efi"), ".initrd")?)
    );
    Ok(())
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
        bail!("qemu-tests/peer/build failed ({status}); it needs root, mmdebstrap and mtools");
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
