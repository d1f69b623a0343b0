//! The loader as it goes onto the ESPs: the program that cargo built, with the root of trust in its
//! `.sptrust` section.

use anyhow::{Context as _, Result, ensure};
use boot_core::trust::{SECTION_MAGIC, SECTION_NAME, SECTION_SIZE, Trust};
use object::read::pe::{PeFile, PeFile64};
use object::{Object as _, ObjectSection as _};

/// Fills the section in; everything else of the program stays as it is.
///
/// # Errors
/// It is no such program, or the trust does not fit.
pub fn with_trust(mut program: Vec<u8>, trust: &Trust) -> Result<Vec<u8>> {
    let (start, size) = section(&program)?;
    ensure!(
        size >= SECTION_SIZE,
        "the loader's {SECTION_NAME} section has {size} bytes, {SECTION_SIZE} are needed"
    );
    let content = trust.to_section().context("encoding the root of trust")?;
    let place = program
        .get_mut(start..start + content.len())
        .context("the loader's section ends past the end of the file")?;
    ensure!(
        place.starts_with(&SECTION_MAGIC),
        "the loader's {SECTION_NAME} section does not start with its mark"
    );
    place.copy_from_slice(&content);
    Ok(program)
}

/// The root of trust in a loader.
///
/// # Errors
/// It is no loader, or has none.
pub fn trust_of(program: &[u8]) -> Result<Trust> {
    let (start, size) = section(program)?;
    let bytes = program
        .get(start..start + size)
        .context("the loader is cut short")?;
    Ok(Trust::from_section(bytes)?)
}

/// Offset and size in the file of the section's bytes.
fn section(program: &[u8]) -> Result<(usize, usize)> {
    let file: PeFile64<'_> = PeFile::parse(program).context("the loader is not a UEFI program")?;
    let section = file
        .section_by_name(SECTION_NAME)
        .with_context(|| format!("the loader has no {SECTION_NAME} section"))?;
    let (start, size) = section
        .file_range()
        .with_context(|| format!("the loader's {SECTION_NAME} section has no bytes in the file"))?;
    Ok((usize::try_from(start)?, usize::try_from(size)?))
}
