//! The bundle: the image as it travels to a machine. docs/formats/bundle.md has it byte by byte.
//!
//! Chunks are compressed on all cores, each a [frame](super::frames) of its own.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::bundle::{FrameTable, Header};

use crate::output::disk::SlotImage;
use crate::output::frames::{Frame, Frames};
use crate::output::verity::in_chunks;
use crate::workshop::{Step, durable};

/// Writes the bundle of an image.
///
/// `leaves` are those of its root, none where it has none.
///
/// # Errors
/// A part cannot be read or does not fit the format, or writing fails.
pub fn write(
    image: &SlotImage,
    leaves: &[u8],
    frames: &Frames,
    out: &Path,
    progress: &Step,
) -> Result<()> {
    progress.total(image.size());
    let uki = compress_file(&image.uki, frames, progress)?;
    let data = match &image.root {
        Some(root) => compress_file(&root.data, frames, progress)?,
        None => Vec::new(),
    };
    let count = |frames: &[Frame]| u32::try_from(frames.len()).context("too many frames");
    let header = Header {
        flags: 0,
        envelope_length: u32::try_from(image.signed.envelope.len())?,
        keyring_length: u32::try_from(image.chain.len())?,
        uki_frames: count(&uki)?,
        root_frames: count(&data)?,
        leaves_length: leaves.len() as u64,
    };
    header
        .check_against(&image.manifest)
        .context("making the bundle")?;
    let all: Vec<Frame> = uki.into_iter().chain(data).collect();
    let table = FrameTable::new(all.iter().map(|frame| frame.length).collect())
        .context("making the bundle")?;
    let what = || format!("writing the bundle {}", out.display());
    let mut file = BufWriter::new(durable::create(durable::parent(out)).with_context(what)?);
    let encoded = header.encode();
    for part in [
        &encoded[..],
        &image.signed.envelope,
        &image.chain,
        &table.encode(),
        leaves,
    ] {
        file.write_all(part).with_context(what)?;
    }
    for frame in &all {
        file.write_all(&frame.read()?).with_context(what)?;
    }
    let file = file
        .into_inner()
        .map_err(|error| error.into_error())
        .with_context(what)?;
    durable::persist(file, out).with_context(what)?;
    frames.sync()
}

fn compress_file(path: &Path, frames: &Frames, progress: &Step) -> Result<Vec<Frame>> {
    let what = || format!("compressing {}", path.display());
    let file = File::open(path).with_context(what)?;
    let size = file.metadata().with_context(what)?.len();
    in_chunks(size, |offset, length| {
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset).with_context(what)?;
        let frame = frames.of(&chunk).with_context(what)?;
        progress.advance(length as u64);
        Ok(frame)
    })
}
