//! The bundle: the image as it travels to a machine. docs/formats/bundle.md has it byte by byte.
//!
//! Chunks are compressed on all cores, each a frame of its own. Frames are kept by level and content
//! of their chunk, so that what did not change since the last build is not compressed again.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use boot_core::Digest;
use boot_core::bundle::{FrameTable, Header, WINDOW_LOG_MAX};

use crate::output::disk::SlotImage;
use crate::output::verity::in_chunks;
use crate::workshop::Step;

/// Writes the bundle of an image.
///
/// `leaves` are those of its root, none where it has none; `frames` is where compressed frames are kept.
///
/// # Errors
/// A part cannot be read or does not fit the format, or writing fails.
pub fn write(
    image: &SlotImage,
    leaves: &[u8],
    level: i32,
    frames: &Path,
    out: &Path,
    progress: &Step,
) -> Result<()> {
    progress.total(image.size());
    let uki = compress_file(&image.uki, level, frames, progress)?;
    let data = match &image.root {
        Some(root) => compress_file(&root.data, level, frames, progress)?,
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
    let temporary = out.with_extension("spb.new");
    let mut file = BufWriter::new(File::create(&temporary).with_context(what)?);
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
        if let Some(path) = &frame.path {
            let bytes = fs::read(path)
                .with_context(|| format!("reading a frame from {}", path.display()))?;
            ensure!(
                bytes.len() == frame.length as usize,
                "the frame {} changed while the bundle was written; build again",
                path.display()
            );
            file.write_all(&bytes).with_context(what)?;
        }
    }
    file.into_inner()
        .map_err(|error| error.into_error())
        .with_context(what)?;
    fs::rename(&temporary, out).with_context(what)
}

struct Frame {
    length: u32,
    /// None for a chunk that is all zero.
    path: Option<PathBuf>,
}

fn compress_file(path: &Path, level: i32, frames: &Path, progress: &Step) -> Result<Vec<Frame>> {
    let what = || format!("compressing {}", path.display());
    let file = File::open(path).with_context(what)?;
    let size = file.metadata().with_context(what)?.len();
    in_chunks(size, |offset, length| {
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset).with_context(what)?;
        let frame = frame(&chunk, level, frames).with_context(what)?;
        progress.advance(length as u64);
        Ok(frame)
    })
}

fn frame(chunk: &[u8], level: i32, frames: &Path) -> Result<Frame> {
    if chunk.iter().all(|byte| *byte == 0) {
        return Ok(Frame {
            length: 0,
            path: None,
        });
    }
    let path = frames.join(format!("{level}-{}.zst", Digest::of(chunk)));
    // A frame is written under another name and renamed, so one that is there is whole.
    let length = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(_) => {
            let packed = compress(chunk, level)?;
            let mut file = tempfile::NamedTempFile::new_in(frames).context("making a frame")?;
            file.write_all(&packed).context("writing a frame")?;
            file.persist(&path).context("keeping a frame")?;
            packed.len() as u64
        }
    };
    Ok(Frame {
        length: u32::try_from(length).context("a frame is too long")?,
        path: Some(path),
    })
}

fn compress(chunk: &[u8], level: i32) -> Result<Vec<u8>> {
    use zstd::zstd_safe::CParameter;
    let mut encoder = zstd::bulk::Compressor::new(level).context("starting zstd")?;
    encoder
        .set_parameter(CParameter::WindowLog(WINDOW_LOG_MAX.min(22)))
        .context("setting zstd's window")?;
    encoder.compress(chunk).context("compressing a chunk")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let chunk: Vec<u8> = (0..100_000u32).map(|n| (n / 100) as u8).collect();
        let one = frame(&chunk, 3, dir.path()).unwrap();
        let path = one.path.unwrap();
        assert_eq!(
            zstd::decode_all(&fs::read(&path).unwrap()[..]).unwrap(),
            chunk
        );
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let two = frame(&chunk, 3, dir.path()).unwrap();
        assert_eq!(two.length, one.length);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), time);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn zeros_are_not_stored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(frame(&[0; 4096], 3, dir.path()).unwrap().length, 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
