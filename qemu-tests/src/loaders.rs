//! Loaders to update to: the image's own, changed, and signed anew.

use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use boot_core::pe::{self, EfiProgram};
use boot_core::{Digest, esp, trust};

use crate::artefacts::Version;
use crate::disk::Disk;
use crate::scenario::Context;

/// A loader, and the bundle of it.
pub struct Loader {
    /// Its SHA-256.
    pub digest: Digest,
    /// The directory that holds its bundle, `loader.spb`, and nothing else.
    pub directory: PathBuf,
}

/// One that differs from the image's own in bytes that nobody reads.
///
/// # Errors
/// It cannot be made.
pub fn another(context: &Context) -> Result<Loader> {
    changed(context, |program| {
        program.extend_from_slice(&[0x5a; 512]);
        Ok(())
    })
}

/// One that firmware starts, and that comes back with an error at once (x86_64).
///
/// # Errors
/// It cannot be made.
pub fn one_that_comes_back(context: &Context) -> Result<Loader> {
    // mov rax, EFI_LOAD_ERROR; ret
    const CODE: [u8; 11] = [0x48, 0xb8, 1, 0, 0, 0, 0, 0, 0, 0x80, 0xc3];
    changed(context, |program| {
        let entry = entry_point(program).context("the loader has no entry point")?;
        program
            .get_mut(entry..entry + CODE.len())
            .context("the loader's entry point is not in the file")?
            .copy_from_slice(&CODE);
        Ok(())
    })
}

/// One that was built to fail after its first line: `feature` of its package says how.
///
/// # Errors
/// It cannot be made.
pub fn one_that_fails(context: &Context, feature: &str) -> Result<Loader> {
    let target = format!("{}-unknown-uefi", context.scenario().architecture.name());
    let directory = context.artefacts().programs().join(feature);
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--profile", "machine", "--locked", "--quiet"])
        .args(["--package", "loader", "--features", feature])
        .args(["--target", &target])
        .env("CARGO_TARGET_DIR", &directory)
        .current_dir(crate::workspace());
    let status = build.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo did not build it: {status}");
    let built = directory.join(target).join("machine/loader.efi");
    let failing =
        std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    changed(context, |program| {
        let root_of_trust = program[section(program)?].to_vec();
        *program = failing;
        let place = section(program)?;
        program[place].copy_from_slice(&root_of_trust);
        Ok(())
    })
}

/// Where a loader keeps its root of trust.
fn section(program: &[u8]) -> Result<Range<usize>> {
    EfiProgram::parse(program)
        .and_then(|program| program.section(trust::SECTION_NAME))
        .context("the loader has no root of trust")
}

fn changed(context: &Context, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Loader> {
    let image = context.image(Version::First)?;
    let own = image.directory().join("loader.efi");
    let mut program =
        std::fs::read(&own).with_context(|| format!("cannot read {}", own.display()))?;
    change(&mut program)?;
    pe::seal(&mut program);
    let (file, directory) = (context.file("changed.efi"), context.file("loader"));
    std::fs::create_dir_all(&directory)?;
    std::fs::write(&file, &program)?;
    let bundle = directory.join("loader.spb");
    context.artefacts().sign_loader(&file, "9.0.0", &bundle)?;
    Ok(Loader {
        digest: Digest::of(&program),
        directory,
    })
}

/// Where the code that firmware enters is in the file.
fn entry_point(program: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u32::from_le_bytes(*program.get(at..)?.first_chunk()?));
    let header = word(0x3c)? as usize;
    let entry = word(header + 24 + 16)?;
    let text = EfiProgram::parse(program)?.section(".text")?;
    // The section's place in memory; the first section is the code.
    let table = header
        + 24
        + usize::from(u16::from_le_bytes(
            *program.get(header + 20..)?.first_chunk()?,
        ));
    let address = word(table + 12)?;
    Some(text.start + entry.checked_sub(address)? as usize)
}

/// The digest of the loader on an ESP of a machine that is off.
///
/// # Errors
/// There is none.
pub fn on(context: &Context, disk: &Disk, label: &str) -> Result<Digest> {
    let architecture = context.scenario().architecture;
    let program = esp::read_loader(&mut disk.partition(label)?, architecture)
        .map_err(|error| anyhow::anyhow!("{label}: {error}"))?;
    Ok(Digest::of(&program))
}
