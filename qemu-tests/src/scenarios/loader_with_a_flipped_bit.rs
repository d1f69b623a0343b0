//! a bit of the loader flips on the first ESP, in its root of trust, then elsewhere: it starts the loader of the second ESP, from which the operator writes it again

use anyhow::{Context as _, Result};
use boot_core::pe::EfiProgram;
use boot_core::trust::SECTION_NAME;

use crate::artefacts::Version;
use crate::disk::Disk;
use crate::loaders;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "loader-with-a-flipped-bit",
    shows: "a bit of the loader flips on the first ESP, in its root of trust, then elsewhere: it starts the loader of the second ESP, from which the operator writes it again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 90,
    run,
};

/// Words of the loader that it does not say before it has looked at its own file.
const LATE_WORDS: &[u8] = b"its UKI does not have the digest that the manifest names";

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let image = std::fs::read(
        context
            .image(Version::First)?
            .directory()
            .join("loader.efi"),
    )?;
    let program = EfiProgram::parse(&image).context("the loader is no program")?;
    let trust = program.section(SECTION_NAME).context("no root of trust")?;
    let late_words = image
        .windows(LATE_WORDS.len())
        .position(|it| it == LATE_WORDS)
        .context("the loader does not say what it says")?;
    let loader = loaders::on(context, &disk, "esp-a")?;
    for at in [trust.start + 40, late_words] {
        flip(&disk, &image, at)?;
        let mut machine = context.start(&[&disk], Options::default())?;
        machine.wait_for_line("esp-a: the loader is damaged", machine.boot_limit())?;
        machine.wait_for_line("loaded from esp-b", machine.boot_limit())?;
        let status = machine.wait_until_good(Version::First.number())?;
        let esp = &status["esps"]["esp-a"];
        expect(esp["ok"] == false, "the damaged loader to be named", esp)?;
        machine.run("bootctl update-loader --copy")?;
        machine.power_off()?;
        let again = loaders::on(context, &disk, "esp-a")?;
        expect(again == loader, "the loader to be whole again", esp)?;
    }
    Ok(())
}

/// Flips a bit of the byte `at` of the loader's file on `esp-a`.
fn flip(disk: &Disk, loader: &[u8], at: usize) -> Result<()> {
    let esp = disk.partition("esp-a")?;
    // The FATs come first.
    let mut bytes = vec![0; loader.len() + (4 << 20)];
    esp.read(0, &mut bytes)?;
    let file = bytes
        .windows(loader.len())
        .position(|it| it == loader)
        .context("the loader is not in one piece on esp-a")?;
    esp.write((file + at) as u64, &[loader[at] ^ 0x10])
}
