//! Frames of a bundle, fetched and decompressed. What comes out is believed by nobody: who asked compares it with the
//! manifest.

use boot_core::Digest;
use boot_core::manifest::CHUNK_SIZE;

use super::bundle_front::BundleFront;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::source::Source;

/// What is fetched at a time, so that the progress moves on slow lines.
const STEP: usize = 256 * 1024;

/// Decompresses frames within the window that bundles may ask for.
pub(super) struct Unpacker {
    decompressor: zstd::bulk::Decompressor<'static>,
    frame: Vec<u8>,
}

impl Unpacker {
    pub(super) fn new() -> Result<Self> {
        let mut decompressor = zstd::bulk::Decompressor::new().map_err(Failure::of)?;
        decompressor
            .window_log_max(boot_core::bundle::WINDOW_LOG_MAX)
            .map_err(Failure::of)?;
        Ok(Self {
            decompressor,
            frame: Vec::new(),
        })
    }

    /// Fills `chunk` with what is in a frame; how many bytes that took from the source.
    pub(super) fn fetch(
        &mut self,
        front: &BundleFront,
        source: &mut dyn Source,
        progress: &Progress,
        frame: u32,
        chunk: &mut [u8],
    ) -> Result<u64> {
        let Some((start, length)) = front.table.frame(frame) else {
            return Err(damaged(source, frame));
        };
        if length == 0 {
            chunk.fill(0);
            return Ok(0);
        }
        self.frame.resize(length as usize, 0);
        let begin = front.header.frames_offset() + start;
        for (part, bytes) in self.frame.chunks_mut(STEP).enumerate() {
            source.read_exact_at(begin + (part * STEP) as u64, bytes)?;
            progress.add(bytes.len() as u64);
        }
        match self.decompressor.decompress_to_buffer(&self.frame, chunk) {
            Ok(n) if n == chunk.len() => Ok(length.into()),
            _ => Err(damaged(source, frame)),
        }
    }
}

/// The whole payload of a bundle without a root, in memory, each byte verified.
pub(crate) fn payload(
    front: &BundleFront,
    source: &mut dyn Source,
    progress: &Progress,
) -> Result<Vec<u8>> {
    let uki = &front.uki;
    let mut unpacker = Unpacker::new()?;
    let mut bytes = vec![0; uki.size as usize];
    source.expect_until(front.end());
    progress.begin("fetching", front.table.total());
    let chunks = bytes.chunks_mut(CHUNK_SIZE as usize);
    for ((frame, chunk), digest) in (0..).zip(chunks).zip(&uki.chunks) {
        unpacker.fetch(front, source, progress, frame, chunk)?;
        if Digest::of(chunk) != *digest {
            return Err(damaged(source, frame));
        }
    }
    progress.end();
    if !source.ends_at(front.end())? {
        return Err(goes_on(source));
    }
    if Digest::of(&bytes) == uki.digest {
        Ok(bytes)
    } else {
        Err(contradicts_itself())
    }
}

/// A frame that is not what was signed.
pub(super) fn damaged(source: &dyn Source, frame: u32) -> Failure {
    Failure::verification(format!(
        "frame {frame} of {} is not what was signed",
        source.name()
    ))
    .next("it was damaged on its way, or is another bundle's: fetch it again; what is already in the slot is kept")
}

/// A source that is longer than its bundle.
pub(super) fn goes_on(source: &dyn Source) -> Failure {
    Failure::source(format!(
        "{} goes on after the end of the bundle: it is not the file that it should be",
        source.name()
    ))
    .next("fetch the bundle again; what is in the slot is kept and will not be fetched again")
}

/// A manifest whose digests cannot all be true.
pub(super) fn contradicts_itself() -> Failure {
    Failure::verification(
        "the UKI's chunks are what was signed, its digest is not theirs: the manifest contradicts itself",
    )
    .next("ask the bundle's publisher for another one")
}
