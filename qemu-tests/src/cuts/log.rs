//! Reads what QEMU's blklogwrites driver recorded: each write, discard and flush of a disk, in the format of the kernel's
//! dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
//!
//! ```text
//! sector 0   magic, version, number of entries, bytes in a sector
//! then each  sector u64, sectors u64, flags u64, length u64 (little-endian, alone in a sector), then the data
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Bytes in a sector of the log, which are also the units of its entries.
const SECTOR: u64 = 512;

const FLUSH: u64 = 1;
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes were written; `forced` ones past the cache.
    Write {
        /// On the disk when it was acknowledged, without a flush.
        forced: bool,
    },
    /// The bytes are of no use any more; they read as zeros.
    Discard,
    /// Everything written before is on the disk.
    Flush,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What was asked.
    pub kind: Kind,
    /// The first byte of the disk that it is about.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
    /// Where in the log the bytes written are.
    data: u64,
}

/// A log, opened to be read. The machine may still be writing it.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    /// What was recorded up to now, in its order.
    pub entries: Vec<Entry>,
}

impl Log {
    /// Reads the entries that are whole; a machine that was killed may have left half of one at the end.
    ///
    /// # Errors
    /// It cannot be read or is no such log.
    pub fn open(path: &Path) -> Result<Log> {
        let what = || format!("cannot read the log of writes {}", path.display());
        let file = File::open(path).with_context(what)?;
        let size = file.metadata().with_context(what)?.len();
        let mut log = Log {
            file,
            path: path.to_owned(),
            entries: Vec::new(),
        };
        if size < SECTOR {
            return Ok(log);
        }
        let [magic, version, _, sector] = log.words(0)?;
        if (magic, version, sector & u64::from(u32::MAX)) != (MAGIC, VERSION, SECTOR) {
            bail!(
                "{} is no log of writes in sectors of {SECTOR} bytes",
                path.display()
            );
        }
        let mut at = SECTOR;
        while at + SECTOR <= size {
            let [sector, sectors, flags, _] = log.words(at)?;
            let kind = match flags {
                _ if flags & FLUSH != 0 => Kind::Flush,
                _ if flags & DISCARD != 0 => Kind::Discard,
                _ => Kind::Write {
                    forced: flags & FORCED != 0,
                },
            };
            let length = sectors.saturating_mul(SECTOR);
            let data = at + SECTOR;
            let stored = match kind {
                Kind::Write { .. } => length,
                Kind::Discard | Kind::Flush => 0,
            };
            // Zeros: a hole that a write still under way has left.
            let hole = flags == 0 && sectors == 0;
            if hole || data.saturating_add(stored) > size {
                break;
            }
            log.entries.push(Entry {
                kind,
                start: sector.saturating_mul(SECTOR),
                length,
                data,
            });
            at = data + stored;
        }
        Ok(log)
    }

    /// The bytes that `entry` wrote.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn data(&self, entry: &Entry) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(entry.length)?];
        self.read(entry.data, &mut bytes)?;
        Ok(bytes)
    }

    fn words(&self, at: u64) -> Result<[u64; 4]> {
        let mut bytes = [0; 32];
        self.read(at, &mut bytes)?;
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(words)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(bytes, at)
            .with_context(|| format!("cannot read {}", self.path.display()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A log of these entries: flags, first sector, data.
    pub(in crate::cuts) fn write(path: &Path, entries: &[(u64, u64, &[u8])]) {
        let mut bytes = Vec::new();
        let block = |words: [u64; 4], bytes: &mut Vec<u8>| {
            let end = bytes.len() + SECTOR as usize;
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.resize(end, 0);
        };
        block([MAGIC, VERSION, entries.len() as u64, SECTOR], &mut bytes);
        for (flags, sector, data) in entries {
            block([*sector, data.len() as u64 / SECTOR, *flags, 0], &mut bytes);
            bytes.extend_from_slice(data);
        }
        File::create(path).unwrap().write_all(&bytes).unwrap();
    }

    #[test]
    fn whole_entries_are_read_and_half_ones_left() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(
            file.path(),
            &[(0, 8, &[1; 1024]), (FLUSH, 0, &[]), (FORCED, 2, &[2; 512])],
        );
        let log = Log::open(file.path()).unwrap();
        let kinds: Vec<_> = log.entries.iter().map(|entry| entry.kind).collect();
        assert_eq!(
            kinds,
            [
                Kind::Write { forced: false },
                Kind::Flush,
                Kind::Write { forced: true }
            ]
        );
        assert_eq!((log.entries[0].start, log.entries[0].length), (4096, 1024));
        assert_eq!(log.data(&log.entries[2]).unwrap(), [2; 512]);

        let whole = std::fs::metadata(file.path()).unwrap().len();
        file.as_file().set_len(whole - 1).unwrap();
        assert_eq!(Log::open(file.path()).unwrap().entries.len(), 2);
        // What a write further on leaves behind it.
        file.as_file().set_len(whole + 4096).unwrap();
        assert_eq!(Log::open(file.path()).unwrap().entries.len(), 3);
    }

    #[test]
    fn something_else_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 4096]).unwrap();
        assert!(Log::open(file.path()).is_err());
    }
}
