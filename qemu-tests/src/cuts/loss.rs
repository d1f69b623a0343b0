//! What a power cut leaves of a disk: everything that was flushed, and by chance some of what was not.
//!
//! Since the last flush each write arrived or did not, in any order; one that arrived may be torn, so that some of its
//! sectors are new and the others old. Discards count as writes of zeros.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::log::{Entry, Kind, Log};
use crate::disk::Disk;

/// How much a cut lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Writes that were not flushed yet.
    pub pending: usize,
    /// Those of them that arrived, whole or torn.
    pub arrived: usize,
    /// Those that are torn.
    pub torn: usize,
}

impl Loss {
    /// Writes that did not arrive whole.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.pending - self.arrived + self.torn
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lost = self.pending - self.arrived;
        write!(
            f,
            "{lost} of {} writes lost, {} torn",
            self.pending, self.torn
        )
    }
}

/// Makes of `disk`, which is as it was when the log began, what a cut after the first `at` entries leaves.
///
/// # Errors
/// The log or the disk cannot be read or written.
pub fn cut_power(disk: &Disk, log: &Log, at: usize, chance: &mut Rng) -> Result<Loss> {
    let before = &log.entries[..at.min(log.entries.len())];
    let flushed = before
        .iter()
        .rposition(|entry| entry.kind == Kind::Flush)
        .map_or(0, |at| at + 1);
    let disk = Target::open(disk)?;
    let (safe, pending) = before.split_at(flushed);
    for entry in safe {
        disk.apply(log, entry)?;
    }
    let mut loss = Loss::default();
    // From a cache that held everything back to one that had written all of it.
    let share = chance.u32(0..=4);
    let mut arrived: Vec<&Entry> = Vec::new();
    for entry in pending {
        if entry.kind == (Kind::Write { forced: true }) {
            disk.apply(log, entry)?;
            continue;
        }
        loss.pending += 1;
        if chance.u32(0..4) < share {
            arrived.push(entry);
        }
    }
    chance.shuffle(&mut arrived);
    loss.arrived = arrived.len();
    for entry in arrived {
        let sectors = entry.length / disk.sector_size;
        if sectors > 1 && chance.u8(0..4) == 0 {
            loss.torn += 1;
            disk.tear(log, entry, chance)?;
        } else {
            disk.apply(log, entry)?;
        }
    }
    Ok(loss)
}

struct Target<'d> {
    file: File,
    path: &'d Path,
    sector_size: u64,
}

impl<'d> Target<'d> {
    fn open(disk: &'d Disk) -> Result<Target<'d>> {
        let path = disk.path();
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Target {
            file,
            path,
            sector_size: disk.sector_size().into(),
        })
    }

    fn apply(&self, log: &Log, entry: &Entry) -> Result<()> {
        match entry.kind {
            Kind::Write { .. } => self.write(entry.start, &log.data(entry)?),
            Kind::Discard => self.discard(entry.start, entry.length),
            Kind::Flush => Ok(()),
        }
    }

    /// Some of its sectors, at least none and at most all but one.
    fn tear(&self, log: &Log, entry: &Entry, chance: &mut Rng) -> Result<()> {
        let data = match entry.kind {
            Kind::Write { .. } => Some(log.data(entry)?),
            Kind::Discard | Kind::Flush => None,
        };
        let sectors = entry.length / self.sector_size;
        let lost = chance.u64(0..sectors);
        for sector in (0..sectors).filter(|sector| *sector != lost) {
            if chance.bool() {
                continue;
            }
            let from = sector * self.sector_size;
            match &data {
                Some(data) => {
                    let end = (from + self.sector_size) as usize;
                    self.write(entry.start + from, &data[from as usize..end])?;
                }
                None => self.discard(entry.start + from, self.sector_size)?,
            }
        }
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn discard(&self, at: u64, length: u64) -> Result<()> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, how, at.try_into()?, length.try_into()?)
            .with_context(|| format!("cannot make a hole in {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::tests::write;
    use super::*;

    const FLUSH: u64 = 1;

    /// Three sectors of old bytes; the first is written and flushed, the others are pending.
    fn tried(seed: u64, at: usize) -> (Vec<u8>, Loss) {
        let directory = tempfile::tempdir().unwrap();
        let (image, log) = (directory.path().join("image"), directory.path().join("log"));
        std::fs::write(&image, [0; 1536]).unwrap();
        write(
            &log,
            &[(0, 0, &[1; 512]), (FLUSH, 0, &[]), (0, 1, &[2; 1024])],
        );
        let disk = Disk::copy(&image, &directory.path().join("disk"), 512).unwrap();
        let log = Log::open(&log).unwrap();
        let loss = cut_power(&disk, &log, at, &mut Rng::with_seed(seed)).unwrap();
        (std::fs::read(disk.path()).unwrap(), loss)
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_by_chance() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let (bytes, loss) = tried(seed, 3);
            assert_eq!(bytes[..512], [1; 512], "flushed");
            assert_eq!(loss.pending, 1);
            let sectors = [bytes[512], bytes[1024]];
            assert!(loss.arrived == 1 || sectors == [0, 0]);
            seen.insert(sectors);
        }
        // Lost, whole, and torn either way.
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            [[0, 0], [0, 2], [2, 0], [2, 2]]
        );
    }

    #[test]
    fn the_same_seed_leaves_the_same_disk() {
        assert_eq!(tried(7, 3), tried(7, 3));
        assert_eq!(tried(7, 0), (vec![0; 1536], Loss::default()));
    }
}
