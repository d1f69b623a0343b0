//! Compressed chunks, kept by level and content of the chunk, so that what did not change since the last
//! build is not compressed again; and by the version of zstd, which another one may pack otherwise: a cache
//! that was filled by an older imager gives the bytes that an empty one gives.
//!
//! A kept frame is used only if it unpacks to the very chunk: one that a power cut emptied, or a bad
//! sector changed, is made anew, and no bundle is ever made of it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use boot_core::Digest;
use boot_core::bundle::WINDOW_LOG_MAX;

use crate::workshop::cache::Cache;
use crate::workshop::durable;

/// Where frames are kept, and the level that they are made with.
#[derive(Clone, Debug)]
pub struct Frames {
    cache: Cache,
    directory: PathBuf,
    level: i32,
}

/// A frame that is kept, or one that is not needed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Bytes; 0 for a chunk that is all zero.
    pub length: u32,
    kept: Option<(PathBuf, Digest)>,
}

impl Frames {
    /// Of a cache.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn new(cache: &Cache, level: i32) -> Result<Self> {
        Ok(Self {
            directory: cache.directory("frames")?,
            cache: cache.clone(),
            level,
        })
    }

    /// The frame of a chunk, made if it is not there or not right.
    ///
    /// # Errors
    /// It cannot be compressed or kept.
    pub fn of(&self, chunk: &[u8]) -> Result<Frame> {
        if chunk.iter().all(|byte| *byte == 0) {
            return Ok(Frame {
                length: 0,
                kept: None,
            });
        }
        let path = self.directory.join(name(
            zstd::zstd_safe::version_number(),
            self.level,
            &Digest::of(chunk),
        ));
        let kept = self.cache.claim(&path).then(|| fs::read(&path).ok());
        let packed = match kept.flatten() {
            Some(kept) if unpacks_to(&kept, chunk) => kept,
            _ => self.make(chunk, &path)?,
        };
        Ok(Frame {
            length: u32::try_from(packed.len()).context("a frame is too long")?,
            kept: Some((path, Digest::of(&packed))),
        })
    }

    /// Puts the names of new frames on the disk.
    ///
    /// # Errors
    /// The filesystem says so.
    pub fn sync(&self) -> Result<()> {
        durable::sync_directory(&self.directory)
            .with_context(|| format!("keeping frames in {}", self.directory.display()))
    }

    fn make(&self, chunk: &[u8], path: &Path) -> Result<Vec<u8>> {
        let packed = compress(chunk, self.level)?;
        ensure!(
            unpacks_to(&packed, chunk),
            "a chunk was compressed to something else: this host's memory or processor fails"
        );
        let mut file = durable::create(&self.directory).context("making a frame")?;
        file.write_all(&packed).context("writing a frame")?;
        durable::rename(file, path).context("keeping a frame")?;
        Ok(packed)
    }
}

impl Frame {
    /// Its bytes, which are those that were there when it was asked for.
    ///
    /// # Errors
    /// They are not, or cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        let Some((path, digest)) = &self.kept else {
            return Ok(Vec::new());
        };
        let bytes =
            fs::read(path).with_context(|| format!("reading a frame from {}", path.display()))?;
        ensure!(
            Digest::of(&bytes) == *digest,
            "the frame {} changed while the bundle was written; build again",
            path.display()
        );
        Ok(bytes)
    }
}

/// `zstd` is its version as a number: 10507 is 1.5.7.
fn name(zstd: u32, level: i32, chunk: &Digest) -> String {
    format!("{zstd}-{level}-{chunk}.zst")
}

fn unpacks_to(packed: &[u8], chunk: &[u8]) -> bool {
    zstd::bulk::decompress(packed, chunk.len()).is_ok_and(|found| found == chunk)
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
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn fixture() -> (tempfile::TempDir, Frames, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let frames = Frames::new(&cache, 3).unwrap();
        let chunk = (0..100_000u32).map(|n| (n / 100) as u8).collect();
        (directory, frames, chunk)
    }

    fn path(frame: &Frame) -> &Path {
        &frame.kept.as_ref().unwrap().0
    }

    #[test]
    fn a_frame_is_kept_and_found_again() {
        let (directory, frames, chunk) = fixture();
        let one = frames.of(&chunk).unwrap();
        assert_eq!(zstd::decode_all(&one.read().unwrap()[..]).unwrap(), chunk);
        let made = fs::metadata(path(&one)).unwrap().ino();
        let two = frames.of(&chunk).unwrap();
        assert_eq!(two.length, one.length);
        assert_eq!(fs::metadata(path(&one)).unwrap().ino(), made);
        frames.sync().unwrap();
        let kept = fs::read_dir(directory.path().join("frames")).unwrap();
        assert_eq!(kept.count(), 1);
    }

    #[test]
    fn a_frame_of_another_zstd_is_not_used() {
        let (_directory, frames, chunk) = fixture();
        let frame = frames.of(&chunk).unwrap();
        let [other, old] = [
            name(10_407, 3, &Digest::of(&chunk)),
            format!("3-{}.zst", Digest::of(&chunk)),
        ];
        for other in [other, old] {
            // It unpacks to the chunk, and is not what this zstd makes of it.
            fs::remove_file(path(&frame)).unwrap();
            fs::write(
                path(&frame).with_file_name(other),
                compress(&chunk, 19).unwrap(),
            )
            .unwrap();
            let again = frames.of(&chunk).unwrap();
            assert_eq!(again.read().unwrap(), compress(&chunk, 3).unwrap());
        }
    }

    #[test]
    fn zeros_are_not_stored() {
        let (directory, frames, _) = fixture();
        let frame = frames.of(&[0; 4096]).unwrap();
        assert_eq!((frame.length, frame.read().unwrap()), (0, vec![]));
        let kept = fs::read_dir(directory.path().join("frames")).unwrap();
        assert_eq!(kept.count(), 0);
    }

    #[test]
    fn a_frame_that_is_not_right_is_made_anew() {
        let (_directory, frames, chunk) = fixture();
        let whole = frames.of(&chunk).unwrap().read().unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let other = compress(&[7; 100_000], 3).unwrap();
        for damaged in [vec![], whole[..whole.len() - 1].to_vec(), flipped, other] {
            let frame = frames.of(&chunk).unwrap();
            fs::write(path(&frame), &damaged).unwrap();
            assert!(frame.read().is_err());
            let again = frames.of(&chunk).unwrap();
            assert_eq!(again.length as usize, whole.len());
            assert_eq!(again.read().unwrap(), whole);
        }
    }
}
