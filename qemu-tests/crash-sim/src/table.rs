//! The partition table's move to the end of a larger disk, by the initrd agent's own code.

use std::io::Cursor;

use anyhow::{Context as _, Result};
use boot_core::layout;
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::LINUX_FS;

use crate::crash::Epoch;
use crate::disk::{Contents, Disk, File, Operation, Part};
use crate::explore::{SECTORS, Tally};
use crate::invariants::{Invariant, Violation};
use crate::path::{Path, Place};
use crate::random::Random;
use crate::sabotage::Sabotage;

const MIB: u64 = 1 << 20;
/// Bytes of the image; the disk has more.
const IMAGE: u64 = 12 * MIB;
/// Its name as a history.
pub(crate) const NAME: &str = "partition-table";

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
    for part in layout::Label::ALL {
        disk.add_partition(
            part.label(),
            MIB,
            LINUX_FS,
            0,
            Some(MIB / u64::from(sector)),
        )?;
    }
    let mut bytes = disk.write()?;
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::MAX).overwrite_lba0(&mut bytes)?;
    let bytes = bytes.into_inner();
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
        .open_from_device(File::new(contents, Part::Whole.size()))?;
    let part = |it: &gpt::partition::Partition| (it.name.clone(), it.first_lba, it.last_lba);
    let mut all: Vec<_> = found.partitions().values().map(part).collect();
    all.sort_by_key(|(_, first, _)| *first);
    Ok(all)
}

/// What the agent does at every start, until there is nothing left to do.
fn grow(contents: &Contents) -> Result<Vec<Operation>, Violation> {
    let disk = Disk::new(contents.clone());
    let mut device = disk.partition(Part::Whole);
    let failed = |error: boot_core::gpt::GptError| Invariant::TableThere.broken(error);
    let table = boot_core::gpt::read(&mut device).map_err(failed)?;
    if let Some(plan) = boot_core::gpt::plan_growth(&table).map_err(failed)? {
        boot_core::gpt::apply(&mut device, &plan.steps).map_err(failed)?;
    }
    let table = boot_core::gpt::read(&mut device).map_err(failed)?;
    let rests = table.is_whole() && matches!(boot_core::gpt::plan_growth(&table), Ok(None));
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

/// The move on one sector size, as it goes without a cut.
struct Move {
    base: Contents,
    partitions: Vec<(String, u64, u64)>,
    /// Last block of the last partition.
    end: u64,
    log: Vec<Operation>,
    /// Whether it wrote what it may.
    wrote: Result<(), Violation>,
}

impl Move {
    fn new(sector: u32, sabotage: Option<Sabotage>) -> Result<Self> {
        let plain = |violation: Violation| anyhow::anyhow!("{violation}");
        let base = new_disk(sector)?;
        let partitions = partitions(&base).map_err(plain)?;
        let mut log = grow(&base).map_err(plain)?;
        let end = partitions.last().context("a table without partitions")?.2;
        if let Some(sabotage) = sabotage.filter(|it| it.is_about_the_table()) {
            log = sabotage.rewrite(&log);
        }
        Ok(Self {
            base,
            wrote: check_writes(&log, sector, end),
            partitions,
            end,
            log,
        })
    }

    /// Looks at what a cut left, and goes on from it; what that wrote.
    fn go_on(&self, contents: &Contents) -> Result<Vec<Operation>, Violation> {
        check(&partitions(contents)?, &self.partitions)?;
        let log = grow(contents)?;
        check_writes(&log, contents.sector, self.end)?;
        Ok(log)
    }

    fn path(&self) -> Path {
        Path {
            history: NAME.into(),
            sector: self.base.sector,
            step: 0,
            places: vec![],
        }
    }

    /// One cut, and `more` by chance of what follows.
    fn cut(&self, first: Place, more: usize, random: &mut Random, tally: &mut Tally) {
        let sector = self.base.sector;
        let mut path = self.path();
        let (mut contents, mut log) = (self.base.clone(), self.log.clone());
        let mut place = Some(first);
        for _ in 0..=more {
            let epochs = Epoch::of(&contents, &log);
            let place = place.take().unwrap_or_else(|| {
                let epoch = random.below(epochs.len());
                let cut = epochs[epoch].any(random);
                Place { epoch, cut }
            });
            contents = epochs[place.epoch].after(&place.cut);
            path.places.push(place);
            tally.tried += 1;
            let fingerprint = contents.fingerprint() ^ u64::from(sector);
            if !tally.distinct.insert(fingerprint) {
                return;
            }
            log = match self.go_on(&contents) {
                Ok(log) => log,
                Err(violation) => return tally.violates(path, violation),
            };
        }
    }
}

/// Every listed cut of the move, each with `more` by chance of what follows.
///
/// # Errors
/// If the move does not work even without a cut.
pub(crate) fn explore(seed: u64, more: usize, sabotage: Option<Sabotage>) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut random = Random::new(seed);
    for sector in SECTORS {
        let it = Move::new(sector, sabotage)?;
        if let Err(violation) = &it.wrote {
            tally.violates(it.path(), violation.clone());
        }
        for (epoch, cuts) in Epoch::of(&it.base, &it.log).iter().enumerate() {
            for cut in cuts.cuts() {
                it.cut(Place { epoch, cut }, more, &mut random, &mut tally);
            }
        }
    }
    Ok(tally)
}

/// Does again what `path` says, and tells it.
///
/// # Errors
/// If there is no such place.
pub(crate) fn replay(
    path: &Path,
    sabotage: Option<Sabotage>,
    tell: &mut dyn FnMut(String),
) -> Result<Option<Violation>> {
    let it = Move::new(path.sector, sabotage)?;
    if let (true, Err(violation)) = (path.places.is_empty(), &it.wrote) {
        return Ok(Some(violation.clone()));
    }
    let (mut contents, mut log) = (it.base.clone(), it.log.clone());
    for place in &path.places {
        let epochs = Epoch::of(&contents, &log);
        let epoch = epochs.get(place.epoch).context("there is no such flush")?;
        let (flushes, arrived) = (place.epoch, epoch.describe(&place.cut));
        tell(format!("after {flushes} flushes; {arrived}"));
        contents = epoch.after(&place.cut);
        log = match it.go_on(&contents) {
            Ok(log) => log,
            Err(violation) => return Ok(Some(violation)),
        };
    }
    Ok(None)
}
