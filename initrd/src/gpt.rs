//! The partition table: reading it, and moving it to the end of a disk that is larger than the image.
//!
//! ```text
//! LBA 0        protective MBR            written only if it is none: firmware and the kernel look no further then
//! LBA 1        primary header
//! LBA 2..      primary entries
//! ...          partitions, `state` last
//! last-n..     backup entries
//! last         backup header
//! ```
//!
//! [`read`] parses, [`plan_growth`] computes the writes without making any, [`apply`] makes them. The order is what
//! makes it safe against power cuts: backup entries, flush, backup header, flush, then the same for the primary. At
//! every instant one valid header exists, at LBA 1 or at the last block, where every tool looks. What a cut leaves
//! behind is finished by planning again from what is then on the disk. A copy that is damaged is written again in the
//! same order: Linux looks at the backup only with `gpt` on its command line.
//!
//! Source of the format: UEFI specification 2.10, section 5.3.

use boot_core::Device;
use bytemuck::bytes_of;
use gpt_disk_types::{
    BlockSize, GptHeader, GptPartitionEntry, GptPartitionEntryArray, LbaLe, MasterBootRecord, U32Le,
};

/// Label of the partition that takes up the room.
const GROWS: &str = "state";
/// Partitions end on a multiple of this many bytes.
const ALIGN: u64 = 1 << 20;
/// A table with more entries than this is not one of ours, and would make us read without bound.
const MAX_ENTRIES: u32 = 512;
const ENTRY_SIZE: u32 = 128;
const HEADER_SIZE: u32 = 92;

/// Why a table could not be read or planned for.
#[derive(Debug, thiserror::Error)]
pub enum GptError {
    /// The device refused a read or a write.
    #[error("{what}: {error}")]
    Device {
        /// What was being done.
        what: &'static str,
        /// The device's own words.
        error: String,
    },
    /// Neither copy of the table is valid.
    #[error("no valid GUID partition table (neither the primary nor the backup header checks)")]
    None,
    /// The device's logical block size is none that a GPT can have.
    #[error("logical block size {0} is not supported")]
    BlockSize(u32),
    /// The disk ends before a partition does.
    #[error("the disk ends at byte {disk}, before the end of partition {number} at {end}")]
    DiskTooSmall {
        /// Size of the disk in bytes.
        disk: u64,
        /// The partition's number.
        number: u32,
        /// Where that partition ends, in bytes.
        end: u64,
    },
    /// A partition begins where the primary table belongs.
    #[error("partition {0} begins where the partition table belongs")]
    Overlap(u32),
    /// The disk ends before a second copy of the table.
    #[error("the disk has no room for two copies of its partition table")]
    NoRoom,
}

/// One valid copy of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TableCopy {
    header: GptHeader,
    /// The entry array, padded to whole blocks.
    entries: Vec<u8>,
}

/// A partition, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number as the kernel counts, from 1.
    pub number: u32,
    /// Label.
    pub label: String,
    /// Type GUID, lower case.
    pub type_guid: String,
    /// Its own GUID, lower case.
    pub guid: String,
    /// Offset in bytes.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

/// What [`read`] found: at least one of the two copies is valid.
#[derive(Debug, Clone)]
pub struct Table {
    block_size: BlockSize,
    blocks: u64,
    /// Whether LBA 0 says that the disk has a GPT.
    protective_mbr: bool,
    primary: Option<TableCopy>,
    /// The valid copy at the last block, or else where the primary says.
    backup: Option<TableCopy>,
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write whole blocks.
    Write {
        /// Offset in bytes.
        offset: u64,
        /// Content.
        bytes: Vec<u8>,
    },
    /// Make all earlier writes durable.
    Flush,
}

/// Writes, in order, and what they achieve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in the order in which they must happen.
    pub steps: Vec<Step>,
    /// The `state` partition after them.
    pub state: Option<Partition>,
    /// What was damaged, and is written again.
    pub restores: Vec<&'static str>,
}

impl Table {
    fn best(&self) -> Option<&TableCopy> {
        self.primary.as_ref().or(self.backup.as_ref())
    }

    /// The disk's GUID, lower case.
    #[must_use]
    pub fn disk_guid(&self) -> String {
        self.best()
            .map(|copy| { copy.header.disk_guid }.to_string())
            .unwrap_or_default()
    }

    /// All partitions in use, by number.
    #[must_use]
    pub fn partitions(&self) -> Vec<Partition> {
        self.best()
            .map(|copy| partitions(copy, self.block_size))
            .unwrap_or_default()
    }

    /// The partition with a label; none if two have it.
    #[must_use]
    pub fn partition(&self, label: &str) -> Option<Partition> {
        let mut found = self.partitions().into_iter().filter(|p| p.label == label);
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// Whether both copies are valid, and the protective MBR.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.protective_mbr && self.primary.is_some() && self.backup.is_some()
    }
}

/// Reads the table of a disk. Does not write.
///
/// # Errors
/// When no copy is valid, or none can be read.
pub fn read<D: Device>(device: &mut D) -> Result<Table, GptError> {
    let size = device.block_size();
    let block_size = BlockSize::new(size)
        .filter(|_| (512..=4096).contains(&size) && size.is_power_of_two())
        .ok_or(GptError::BlockSize(size))?;
    let blocks = device.size() / u64::from(size);
    let mut first = vec![0; size as usize];
    let protective_mbr = read_at(device, "reading the protective MBR", 0, &mut first).is_ok()
        && is_protective(&first);
    // A copy that cannot be read is like one that does not check, as it is for the loader.
    let mut refused = None;
    let mut copy_at = |lba| {
        let copy = read_copy(device, block_size, blocks, lba);
        copy.unwrap_or_else(|error| {
            refused.get_or_insert(error);
            None
        })
    };
    let primary = copy_at(1);
    let last = blocks.saturating_sub(1);
    let mut backup = copy_at(last);
    if let (None, Some(copy)) = (&backup, &primary) {
        let alternate = copy.header.alternate_lba.to_u64();
        if alternate != last && alternate > 1 {
            backup = copy_at(alternate);
        }
    }
    if primary.is_none() && backup.is_none() {
        return Err(refused.unwrap_or(GptError::None));
    }
    Ok(Table {
        block_size,
        blocks,
        protective_mbr,
        primary,
        backup,
    })
}

/// Whether a block is a protective MBR to firmware (UEFI 2.10, section 5.2.3) and to Linux: its signature, and a record
/// of type 0xEE that is not bootable and starts at LBA 1. Its size is not looked at; disks grow.
#[must_use]
pub fn is_protective(block: &[u8]) -> bool {
    let Some(bytes) = block.get(..size_of::<MasterBootRecord>()) else {
        return false;
    };
    let mbr: MasterBootRecord = bytemuck::pod_read_unaligned(bytes);
    mbr.signature == [0x55, 0xaa]
        && mbr.partitions.iter().any(|record| {
            record.boot_indicator == 0
                && record.os_indicator == 0xee
                && record.starting_lba.to_u32() == 1
        })
}

fn read_copy<D: Device>(
    device: &mut D,
    block_size: BlockSize,
    blocks: u64,
    lba: u64,
) -> Result<Option<TableCopy>, GptError> {
    let bs = block_size.to_u64();
    if lba == 0 || lba >= blocks {
        return Ok(None);
    }
    let mut block = vec![0; block_size.to_u32() as usize];
    let Some(offset) = lba.checked_mul(bs) else {
        return Ok(None);
    };
    read_at(
        device,
        "reading a partition table header",
        offset,
        &mut block,
    )?;
    let Some(bytes) = block.get(..size_of::<GptHeader>()) else {
        return Ok(None);
    };
    let header: GptHeader = bytemuck::pod_read_unaligned(bytes);
    let count = header.number_of_partition_entries.to_u32();
    let sane = header.is_signature_valid()
        && header.header_size.to_u32() == HEADER_SIZE
        && header.header_crc32 == header.calculate_header_crc32()
        && header.my_lba.to_u64() == lba
        && header.size_of_partition_entry.to_u32() == ENTRY_SIZE
        && (1..=MAX_ENTRIES).contains(&count)
        && header.first_usable_lba.to_u64() <= header.last_usable_lba.to_u64();
    if !sane {
        return Ok(None);
    }
    let at = header.partition_entry_lba.to_u64();
    let length = entry_blocks(count, block_size);
    if at < 2 || at.checked_add(length).is_none_or(|end| end > blocks) {
        return Ok(None);
    }
    let mut entries = vec![0; (length * bs) as usize];
    read_at(
        device,
        "reading the partition entries",
        at * bs,
        &mut entries,
    )?;
    let mut copy = TableCopy { header, entries };
    let crc = copy.array(block_size).map(|array| array.calculate_crc32());
    Ok((crc == Some(header.partition_entry_array_crc32)).then_some(copy))
}

fn read_at<D: Device>(
    device: &mut D,
    what: &'static str,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), GptError> {
    device
        .read_at(offset, buf)
        .map_err(|error| GptError::Device {
            what,
            error: error.to_string(),
        })
}

/// Blocks that an array of `count` entries fills.
fn entry_blocks(count: u32, block_size: BlockSize) -> u64 {
    (u64::from(count) * u64::from(ENTRY_SIZE)).div_ceil(block_size.to_u64())
}

impl TableCopy {
    fn array(&mut self, block_size: BlockSize) -> Option<GptPartitionEntryArray<'_>> {
        let layout = self.header.get_partition_entry_array_layout().ok()?;
        GptPartitionEntryArray::new(layout, block_size, &mut self.entries).ok()
    }

    fn entries(&self) -> impl Iterator<Item = (u32, GptPartitionEntry)> + '_ {
        let count = self.header.number_of_partition_entries.to_u32();
        (0..count)
            .zip(self.entries.chunks_exact(ENTRY_SIZE as usize))
            .map(|(index, bytes)| (index, bytemuck::pod_read_unaligned(bytes)))
            .filter(|(_, entry): &(u32, GptPartitionEntry)| entry.is_used())
    }

    /// This table with its header placed at `lba` and its twin at `alternate`.
    fn placed(
        &self,
        lba: u64,
        alternate: u64,
        entries_at: u64,
        last_usable: u64,
        block_size: BlockSize,
    ) -> Option<Self> {
        let mut copy = self.clone();
        copy.header.my_lba = LbaLe::from_u64(lba);
        copy.header.alternate_lba = LbaLe::from_u64(alternate);
        copy.header.partition_entry_lba = LbaLe::from_u64(entries_at);
        copy.header.last_usable_lba = LbaLe::from_u64(last_usable);
        copy.header.reserved = U32Le::from_u32(0);
        copy.header.partition_entry_array_crc32 = copy.array(block_size)?.calculate_crc32();
        copy.header.update_header_crc32();
        Some(copy)
    }

    /// Entries, flush, header, flush.
    fn steps(&self, block_size: BlockSize, steps: &mut Vec<Step>) {
        let bs = block_size.to_u64();
        let mut block = vec![0; block_size.to_u32() as usize];
        for (to, from) in block.iter_mut().zip(bytes_of(&self.header)) {
            *to = *from;
        }
        steps.extend([
            Step::Write {
                offset: self.header.partition_entry_lba.to_u64() * bs,
                bytes: self.entries.clone(),
            },
            Step::Flush,
            Step::Write {
                offset: self.header.my_lba.to_u64() * bs,
                bytes: block,
            },
            Step::Flush,
        ]);
    }
}

fn partitions(copy: &TableCopy, block_size: BlockSize) -> Vec<Partition> {
    let bs = block_size.to_u64();
    copy.entries()
        .filter_map(|(index, entry)| {
            let (first, last) = (entry.starting_lba.to_u64(), entry.ending_lba.to_u64());
            let blocks = last.checked_sub(first)?.checked_add(1)?;
            Some(Partition {
                number: index + 1,
                label: { entry.name }.chars().collect(),
                type_guid: { entry.partition_type_guid }.0.to_string(),
                start: first.checked_mul(bs)?,
                size: blocks.checked_mul(bs)?,
                guid: { entry.unique_partition_guid }.to_string(),
            })
        })
        .collect()
}

/// Computes what makes the table fit the disk: `state` stretched to the end, both copies whole and the backup in the
/// last block. Nothing to do is `None`. A partition is never made smaller, moved or renumbered. Does not write.
///
/// # Errors
/// When the disk is smaller than what its table describes, or a partition lies where the table belongs.
pub fn plan_growth(table: &Table) -> Result<Option<Plan>, GptError> {
    let bs = table.block_size;
    let Some(now) = table.best() else {
        return Err(GptError::None);
    };
    let last = table.blocks.saturating_sub(1);
    let length = entry_blocks(now.header.number_of_partition_entries.to_u32(), bs);
    let last_usable = last.saturating_sub(length + 1);
    if let Some((index, entry)) = now
        .entries()
        .find(|(_, entry)| entry.ending_lba.to_u64() > last_usable)
    {
        return Err(GptError::DiskTooSmall {
            disk: table.blocks * bs.to_u64(),
            number: index + 1,
            end: (entry.ending_lba.to_u64().saturating_add(1)).saturating_mul(bs.to_u64()),
        });
    }

    if let Some((index, _)) = now
        .entries()
        .find(|(_, entry)| entry.starting_lba.to_u64() < 2 + length)
    {
        return Err(GptError::Overlap(index + 1));
    }

    if last_usable < (2 + length).max(now.header.first_usable_lba.to_u64()) {
        return Err(GptError::NoRoom);
    }

    let mut wanted = now.clone();
    stretch(&mut wanted, last_usable, bs);
    let entries_at = last - length;
    let primary = wanted.placed(1, last, 2, last_usable, bs);
    let backup = wanted.placed(last, 1, entries_at, last_usable, bs);
    let (Some(primary), Some(backup)) = (primary, backup) else {
        return Err(GptError::None);
    };

    let mut steps = Vec::new();
    let mut on_disk = table.primary.clone();
    let damaged = [
        (table.primary.is_some(), "the primary partition table"),
        (table.backup.is_some(), "the backup partition table"),
        (table.protective_mbr, "the protective MBR"),
    ];
    if on_disk.is_none() {
        // The backup is the only copy left: it is not touched until it has a twin.
        let header = &now.header;
        let restored = now.placed(
            1,
            header.my_lba.to_u64(),
            2,
            header.last_usable_lba.to_u64(),
            bs,
        );
        if let Some(copy) = &restored {
            copy.steps(bs, &mut steps);
        }
        on_disk = restored;
    }
    if table.backup.as_ref() != Some(&backup) {
        backup.steps(bs, &mut steps);
    }
    if on_disk.as_ref() != Some(&primary) {
        primary.steps(bs, &mut steps);
    }
    if !table.protective_mbr {
        let mut block = vec![0; bs.to_u32() as usize];
        let mbr = MasterBootRecord::protective_mbr(table.blocks);
        for (to, from) in block.iter_mut().zip(bytes_of(&mbr)) {
            *to = *from;
        }
        steps.extend([
            Step::Write {
                offset: 0,
                bytes: block,
            },
            Step::Flush,
        ]);
    }
    if steps.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plan {
        steps,
        state: partitions(&primary, bs)
            .into_iter()
            .find(|p| p.label == GROWS),
        restores: damaged
            .into_iter()
            .filter_map(|(whole, what)| (!whole).then_some(what))
            .collect(),
    }))
}

/// Stretches `state` to the last aligned block before `last_usable`, if it is the last partition on the disk.
fn stretch(copy: &mut TableCopy, last_usable: u64, block_size: BlockSize) {
    let align = (ALIGN / block_size.to_u64()).max(1);
    let end = ((last_usable + 1) / align * align).saturating_sub(1);
    let Some((index, mut entry)) = copy.entries().max_by_key(|(_, e)| e.ending_lba.to_u64()) else {
        return;
    };
    let grows = { entry.name }.chars().collect::<String>() == GROWS && entry.lba_range().is_some();
    if !grows || end <= entry.ending_lba.to_u64() {
        return;
    }
    entry.ending_lba = LbaLe::from_u64(end);
    if let Some(mut array) = copy.array(block_size)
        && let Some(slot) = array.get_partition_entry_mut(index)
    {
        *slot = entry;
    }
}

/// Makes the writes of a plan.
///
/// # Errors
/// When the device refuses one. What was written until then leaves a table that [`read`] accepts.
pub fn apply<D: Device>(device: &mut D, plan: &Plan) -> Result<(), GptError> {
    for step in &plan.steps {
        let (what, result) = match step {
            Step::Write { offset, bytes } => (
                "writing the partition table",
                device.write_at(*offset, bytes),
            ),
            Step::Flush => ("flushing the partition table", device.flush()),
        };
        result.map_err(|error| GptError::Device {
            what,
            error: error.to_string(),
        })?;
    }
    Ok(())
}
