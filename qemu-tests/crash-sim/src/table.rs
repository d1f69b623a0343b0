//! The partition table's move to the end of a larger disk, by the initrd agent's own code.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use anyhow::{Context as _, Result};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::LINUX_FS;

use crate::crash::Epoch;
use crate::disk::{Contents, Disk, Operation, Part};
use crate::explore::{SECTORS, Tally};
use crate::invariants::{Invariant, Violation};
use crate::path::{Path, Place};
use crate::random::Random;

const MIB: u64 = 1 << 20;
/// Bytes of the image; the disk has more.
const IMAGE: u64 = 12 * MIB;
const LABELS: [&str; 9] = [
    "esp-a",
    "esp-b",
    "boot-state",
    "boot-a",
    "boot-b",
    "boot-r",
    "root-a",
    "root-b",
    "state",
];

fn block_size(sector: u32) -> LogicalBlockSize {
    match sector {
        512 => LogicalBlockSize::Lb512,
        _ => LogicalBlockSize::Lb4096,
    }
}

/// A disk as an image builder's bytes leave it: its table is the image's, whose end is not the disk's.
fn new_disk(sector: u32) -> Result<Contents> {
    let mut disk = GptConfig::new()
        .writable(true)
        .logical_block_size(block_size(sector))
        .create_from_device(Cursor::new(vec![0u8; IMAGE as usize]), None)?;
    for label in LABELS {
        disk.add_partition(label, MIB, LINUX_FS, 0, Some(MIB / u64::from(sector)))?;
    }
    let bytes = disk.write()?.into_inner();
    let mut contents = Contents::new(sector);
    for (block, offset) in bytes.chunks(4096).zip((0..).step_by(4096)) {
        if block.iter().any(|byte| *byte != 0) {
            contents.write(Part::Whole, offset, block);
        }
    }
    Ok(contents)
}

/// First and last block of each partition, as another implementation reads them: from the primary copy, or where that
/// does not check from the backup.
fn partitions(contents: &Contents) -> Result<Vec<(String, u64, u64)>, Violation> {
    let sector = u64::from(contents.sector);
    open(contents.clone())
        .or_else(|_| {
            // This implementation looks at the backup only if the primary header itself is damaged.
            let mut without = contents.clone();
            without.write(Part::Whole, sector, &vec![0; contents.sector as usize]);
            open(without)
        })
        .map_err(|error| Invariant::TableThere.broken(error))
}

fn open(contents: Contents) -> Result<Vec<(String, u64, u64)>, gpt::GptError> {
    let sector = contents.sector;
    let found = GptConfig::new()
        .writable(false)
        .only_valid_headers(false)
        .logical_block_size(block_size(sector))
        .open_from_device(Reader { contents, at: 0 })?;
    let part = |it: &gpt::partition::Partition| (it.name.clone(), it.first_lba, it.last_lba);
    let mut all: Vec<_> = found.partitions().values().map(part).collect();
    all.sort_by_key(|(_, first, _)| *first);
    Ok(all)
}

/// What the agent does at every start, until there is nothing left to do.
fn grow(contents: &Contents) -> Result<Vec<Operation>, Violation> {
    let disk = Disk::new(contents.clone());
    let mut device = disk.partition(Part::Whole);
    let failed = |error: initrd::gpt::GptError| Invariant::TableThere.broken(error);
    let table = initrd::gpt::read(&mut device).map_err(failed)?;
    if let Some(plan) = initrd::gpt::plan_growth(&table).map_err(failed)? {
        initrd::gpt::apply(&mut device, &plan).map_err(failed)?;
    }
    let table = initrd::gpt::read(&mut device).map_err(failed)?;
    let rests = table.is_whole() && matches!(initrd::gpt::plan_growth(&table), Ok(None));
    if !rests {
        return Err(Invariant::NoLoop.broken("the table is not whole after it was grown"));
    }
    Ok(disk.take_log())
}

fn check(new: &[(String, u64, u64)], old: &[(String, u64, u64)]) -> Result<(), Violation> {
    let kept = new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| {
            new.0 == old.0
                && new.1 == old.1
                && (new.2 == old.2 || new.0 == "state" && new.2 > old.2)
        });
    kept.then_some(())
        .ok_or_else(|| Invariant::PartitionsUntouched.broken(format!("{old:?} became {new:?}")))
}

/// Nothing is written where partitions are: `state` keeps its bytes.
fn check_writes(log: &[Operation], sector: u32, end: u64) -> Result<(), Violation> {
    for operation in log {
        if let Operation::Write(_, offset, bytes) = operation {
            let within =
                *offset < (end + 1) * u64::from(sector) && offset + bytes.len() as u64 > MIB;
            if within {
                return Err(
                    Invariant::PartitionsUntouched.broken(format!("byte {offset} is written"))
                );
            }
        }
    }
    Ok(())
}

/// Every listed cut of the move, each with `more` by chance of what follows.
///
/// # Errors
/// If the move does not work even without a cut.
pub(crate) fn explore(seed: u64, more: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut random = Random::new(seed);
    for sector in SECTORS {
        let base = new_disk(sector)?;
        let plain = |violation: Violation| anyhow::anyhow!("{violation}");
        let old = partitions(&base).map_err(plain)?;
        let log = grow(&base).map_err(plain)?;
        let end = old.last().context("a table without partitions")?.2;
        check_writes(&log, sector, end).map_err(plain)?;
        for (epoch, it) in Epoch::of(&base, &log).iter().enumerate() {
            for cut in it.cuts() {
                let mut path = Path {
                    history: "partition-table".into(),
                    sector,
                    step: 0,
                    places: vec![],
                };
                let mut contents = it.after(&cut);
                path.places.push(Place { epoch, cut });
                for _ in 0..=more {
                    tally.tried += 1;
                    if !tally
                        .distinct
                        .insert(contents.fingerprint() ^ u64::from(sector))
                    {
                        break;
                    }
                    let grown = partitions(&contents)
                        .and_then(|new| check(&new, &old))
                        .and_then(|()| grow(&contents));
                    let log = match grown {
                        Ok(log) => log,
                        Err(violation) => {
                            tally.violated += 1;
                            tally.note(violation.invariant, path, violation);
                            break;
                        }
                    };
                    let epochs = Epoch::of(&contents, &log);
                    let epoch = random.below(epochs.len());
                    let cut = epochs[epoch].any(&mut random);
                    contents = epochs[epoch].after(&cut);
                    path.places.push(Place { epoch, cut });
                }
            }
        }
    }
    Ok(tally)
}

/// A disk as a file, for another implementation to read.
#[derive(Debug)]
struct Reader {
    contents: Contents,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = Part::Whole.size().saturating_sub(self.at);
        let length = buf.len().min(left as usize);
        self.contents.read(Part::Whole, self.at, &mut buf[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for Reader {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let size = Part::Whole.size();
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
