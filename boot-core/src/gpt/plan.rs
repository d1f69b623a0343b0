//! The writes that make a table: a new one, or one that fits a disk which is larger than it was. Pure.

use alloc::{vec, vec::Vec};

use super::{
    GptError, Partition, Step, Table, block_size,
    copy::{TableCopy, entry_blocks},
    mbr,
};
use crate::{
    bytes::memory_len,
    layout::{ALIGNMENT, Guid, Label},
};

/// Writes, in order, and what they achieve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order in which they must happen.
    pub steps: Vec<Step>,
    /// The `state` partition after them.
    pub state: Option<Partition>,
    /// What was damaged, and is written again.
    pub restores: Vec<&'static str>,
}

/// Where both copies of a table lie on a disk.
struct Places {
    /// Blocks of the entries.
    length: u64,
    last: u64,
    last_usable: u64,
}

impl Places {
    fn new(blocks: u64, entries: u32, bs: u64) -> Self {
        let length = entry_blocks(entries, bs);
        let last = blocks.saturating_sub(1);
        Self {
            length,
            last,
            last_usable: last.saturating_sub(length).saturating_sub(1),
        }
    }

    /// Whether the table has room for itself and does not reach into a partition.
    fn check(&self, table: &TableCopy, blocks: u64, bs: u64) -> Result<(), GptError> {
        let begin = self.length.saturating_add(2);
        for it in table.entries() {
            if it.last > self.last_usable {
                return Err(GptError::DiskTooSmall {
                    disk: blocks.saturating_mul(bs),
                    number: it.number,
                    end: it.last.saturating_add(1).saturating_mul(bs),
                });
            }
        }
        if let Some(it) = table.entries().find(|it| it.first < begin) {
            return Err(GptError::Overlap(it.number));
        }
        if self.last_usable < begin.max(table.first_usable()) {
            return Err(GptError::NoRoom);
        }
        Ok(())
    }

    fn primary(&self, table: &TableCopy) -> TableCopy {
        table.placed(1, self.last, 2, self.last_usable)
    }

    fn backup(&self, table: &TableCopy) -> TableCopy {
        let entries = self.last.saturating_sub(self.length);
        table.placed(self.last, 1, entries, self.last_usable)
    }
}

/// Computes the writes that give a new disk of `size` bytes its protective MBR and both copies of its table.
///
/// # Errors
/// When a partition cannot be described, or does not leave room for the table.
pub fn create(
    disk: Guid,
    sector_size: u32,
    size: u64,
    partitions: &[Partition],
) -> Result<Vec<Step>, GptError> {
    let bs = block_size(sector_size)?;
    let blocks = size.checked_div(bs).unwrap_or(0);
    let table = TableCopy::new(disk, partitions, bs)?;
    let places = Places::new(blocks, table.entry_count(), bs);
    places.check(&table, blocks, bs)?;
    let mut steps = vec![protective_mbr(bs, blocks)];
    steps.extend(places.primary(&table).steps(bs));
    steps.extend(places.backup(&table).steps(bs));
    Ok(steps)
}

/// Computes what makes the table fit the disk: `state` stretched to the end, both copies whole and the backup in the
/// last block. Nothing to do is `None`. A partition is never made smaller, moved or renumbered.
///
/// # Errors
/// When the disk is smaller than what its table describes, or a partition lies where the table belongs.
pub fn plan_growth(table: &Table) -> Result<Option<Plan>, GptError> {
    let bs = u64::from(table.block_size);
    let Some(now) = table.best() else {
        return Ok(None);
    };
    let places = Places::new(table.blocks, now.entry_count(), bs);
    places.check(now, table.blocks, bs)?;
    let mut wanted = now.clone();
    stretch(&mut wanted, places.last_usable, bs);
    let (primary, backup) = (places.primary(&wanted), places.backup(&wanted));

    let mut steps = Vec::new();
    let mut on_disk = table.primary.clone();
    if on_disk.is_none() {
        // The backup is the only copy left: it is not touched until it has a twin.
        let restored = now.placed(1, now.my_lba(), 2, now.last_usable());
        steps.extend(restored.steps(bs));
        on_disk = Some(restored);
    }
    if table.backup.as_ref() != Some(&backup) {
        steps.extend(backup.steps(bs));
    }
    if on_disk.as_ref() != Some(&primary) {
        steps.extend(primary.steps(bs));
    }
    if !table.protective_mbr {
        steps.extend([protective_mbr(bs, table.blocks), Step::Flush]);
    }
    if steps.is_empty() {
        return Ok(None);
    }
    let damaged = [
        (table.primary.is_none(), "the primary partition table"),
        (table.backup.is_none(), "the backup partition table"),
        (!table.protective_mbr, "the protective MBR"),
    ];
    let state = Label::State.label();
    Ok(Some(Plan {
        steps,
        state: primary
            .partitions(bs)
            .into_iter()
            .find(|it| it.label == state),
        restores: damaged
            .into_iter()
            .filter_map(|(damaged, what)| damaged.then_some(what))
            .collect(),
    }))
}

fn protective_mbr(bs: u64, blocks: u64) -> Step {
    Step::Write {
        offset: 0,
        bytes: mbr::protective(memory_len(bs), blocks),
    }
}

/// Stretches `state` to the last aligned block before `last_usable`, if it is the last partition on the disk.
fn stretch(table: &mut TableCopy, last_usable: u64, bs: u64) {
    let align = ALIGNMENT.checked_div(bs).unwrap_or(1).max(1);
    let usable = last_usable.saturating_add(1);
    let aligned = usable.saturating_sub(usable.checked_rem(align).unwrap_or(0));
    let end = aligned.saturating_sub(1);
    let last = table.entries().max_by_key(|it| it.last);
    if let Some(it) = last
        && it.label() == Label::State.label()
        && it.first <= it.last
        && it.last < end
    {
        let number = it.number;
        table.set_last(number, end);
    }
}
