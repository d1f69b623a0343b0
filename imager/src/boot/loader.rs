//! The loader as it goes onto the ESPs: the program that cargo built, with the root of trust in its
//! `.sptrust` section; and the signed image of it that machines in the field take.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use boot_core::manifest::{Build, Contents, Kind, Manifest};
use boot_core::pe::{self, EfiProgram};
use boot_core::trust::{SECTION_MAGIC, SECTION_NAME, SECTION_SIZE, Trust};
use boot_core::{SecurityVersion, Version};
use object::LittleEndian;
use object::pe::{IMAGE_DIRECTORY_ENTRY_DEBUG, ImageDebugDirectory};
use object::read::pe::{PeFile, PeFile64};

use crate::output::disk::SlotImage;
use crate::release::authority::Authority;

/// Fills the section in, and the checksum; everything else of the program stays as it is.
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
    pe::seal(&mut program);
    Ok(program)
}

/// Takes out of a program what depends on when and where it was linked, so that the same sources
/// give the same bytes: the time in its header, and the debug directory, which names it by the hash
/// of a PDB that is full of paths. rustc asks the linker for both whatever it is told.
pub fn forget_linking(program: &mut [u8]) -> Result<()> {
    // "PE Format": signature and COFF header, then PE32+'s optional header.
    const TIME: usize = 4 + 4;
    const DIRECTORIES: usize = 4 + 20 + 112;
    let mut places = Vec::new();
    {
        let file: PeFile64<'_> = PeFile::parse(&*program).context("it is not a UEFI program")?;
        let header = usize::try_from(file.dos_header().nt_headers_offset())?;
        places.push((header + TIME, 4));
        if let Some(directory) = file.data_directory(IMAGE_DIRECTORY_ENTRY_DEBUG) {
            let sections = file.section_table();
            let what = "its debug directory is not in the file";
            let (start, size) = directory.file_range(&sections).context(what)?;
            places.push((usize::try_from(start)?, usize::try_from(size)?));
            places.push((header + DIRECTORIES + 8 * IMAGE_DIRECTORY_ENTRY_DEBUG, 8));
            let entries = directory.data(&*program, &sections).context(what)?;
            for entry in entries.chunks_exact(size_of::<ImageDebugDirectory>()) {
                let (entry, _) = object::from_bytes::<ImageDebugDirectory>(entry)
                    .map_err(|()| anyhow::anyhow!(what))?;
                let start = entry.pointer_to_raw_data.get(LittleEndian);
                let size = entry.size_of_data.get(LittleEndian);
                places.push((usize::try_from(start)?, usize::try_from(size)?));
            }
        }
    }
    for (start, size) in places {
        program
            .get_mut(start..start + size)
            .context("it is cut short")?
            .fill(0);
    }
    Ok(())
}

/// What the manifest of a loader says beside what is in the loader.
#[derive(Clone, Debug)]
pub struct Release {
    pub version: String,
    pub security_version: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// The recipe that it was built with; empty if there was none.
    pub recipe: String,
    /// Seconds since 1970 after which it is not installed any more.
    pub expires: Option<u64>,
}

/// The signed image of the loader in the file `program`. Product, architecture and layout are those of its root of
/// trust.
///
/// # Errors
/// It is no loader, or one for other keys, or it cannot be signed.
pub fn sign(program: &Path, authority: &Authority, release: &Release) -> Result<SlotImage> {
    let what = || format!("reading the loader {}", program.display());
    let bytes = std::fs::read(program).with_context(what)?;
    let trust = Trust::from_intact_program(&bytes).with_context(what)?;
    ensure!(
        trust == authority.trust(trust.architecture, &trust.layout),
        "{} starts images of product `{}` and other root keys; use the keys that it was built with",
        program.display(),
        trust.product
    );
    let version: Version = release
        .version
        .parse()
        .with_context(|| format!("`{}` cannot be the version of a loader", release.version))?;
    let manifest = Manifest {
        format: boot_core::manifest::FORMAT,
        product: trust.product,
        kind: Kind::Loader,
        layout: trust.layout,
        version,
        security_version: SecurityVersion(release.security_version),
        state_epoch: 0,
        architecture: trust.architecture,
        uki: Some(crate::build::describe_uki(program)?),
        root: None,
        events: Vec::new(),
        contents: Contents::default(),
        build: Build {
            time: release.time,
            tool: crate::build::TOOL.to_owned(),
            recipe: release.recipe.clone(),
        },
        expires: release.expires,
    };
    Ok(SlotImage {
        signed: authority.sign(&manifest)?,
        manifest,
        chain: authority.chain.clone(),
        uki: program.to_owned(),
        root: None,
    })
}

/// Offset and size in the file of the section's bytes.
fn section(program: &[u8]) -> Result<(usize, usize)> {
    let range = EfiProgram::parse(program)
        .context("the loader is not a UEFI program")?
        .section(SECTION_NAME)
        .with_context(|| format!("the loader has no {SECTION_NAME} section"))?;
    Ok((range.start, range.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest program with a debug directory, linked at `time` where paths hash to `id`.
    fn linked(time: u32, id: u8) -> Vec<u8> {
        let mut program = vec![0; 0x400];
        let mut put =
            |at: usize, bytes: &[u8]| program[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &64_u32.to_le_bytes());
        put(64, b"PE\0\0\x64\x86\x01\0");
        put(64 + 8, &time.to_le_bytes());
        put(64 + 20, &240_u16.to_le_bytes());
        let optional = 64 + 24;
        put(optional, &0x20b_u16.to_le_bytes());
        put(optional + 108, &16_u32.to_le_bytes());
        // The debug directory: where it is when loaded, and its size.
        put(optional + 112 + 6 * 8, &0x1000_u32.to_le_bytes());
        put(optional + 112 + 6 * 8 + 4, &28_u32.to_le_bytes());
        let section = optional + 240;
        put(section, b".rdata");
        for (field, value) in [(8, 0x200_u32), (12, 0x1000), (16, 0x200), (20, 0x200)] {
            put(section + field, &value.to_le_bytes());
        }
        // Its one entry: time, size and place in the file of what identifies the PDB.
        for (field, value) in [(4, time), (12, 2), (16, 24), (24, 0x220)] {
            put(0x200 + field, &value.to_le_bytes());
        }
        put(0x220, &[id; 24]);
        put(0x220 + 24, b"what the program needs");
        program
    }

    #[test]
    fn where_and_when_it_was_linked_is_forgotten() {
        let (mut one, mut two) = (linked(1, 1), linked(2, 2));
        forget_linking(&mut one).unwrap();
        forget_linking(&mut two).unwrap();
        assert!(one == two);
        let mut nowhere = linked(0, 0);
        nowhere[0x200..0x220].fill(0);
        nowhere[64 + 24 + 112 + 48..64 + 24 + 112 + 56].fill(0);
        assert!(one == nowhere);
        assert!(forget_linking(&mut b"no program".to_vec()).is_err());
    }
}
