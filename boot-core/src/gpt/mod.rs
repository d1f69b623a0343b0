//! The GUID partition table of a disk: one reader, one encoder, one plan for a disk that is larger than its image.
//!
//! ```text
//! LBA 0        protective MBR            firmware and the kernel look no further without one
//! LBA 1        primary header
//! LBA 2..      primary entries
//! ...          partitions, `state` last
//! last-n..     backup entries
//! last         backup header
//! ```
//!
//! The loader finds its partitions with it, the initrd agent finds them and moves the table to the end of a larger
//! disk, `imager` writes and inspects images: so none of them can find another partition than the others do. Where the
//! specification leaves room (longer headers and entries, which nobody writes), a table is refused.
//!
//! [`read`] parses both copies; [`create`] and [`plan_growth`] compute writes without making any; [`apply`] makes them.
//! The order is what makes growth safe against power cuts: backup entries, flush, backup header, flush, then the same
//! for the primary. At every instant one valid header exists, at LBA 1 or at the last block, where every tool looks.
//! What a cut leaves behind is finished by planning again from what is then on the disk. A copy that is damaged is
//! written again in the same order: Linux looks at the backup only with `gpt` on its command line.
//!
//! A copy that cannot be read is like one that does not check. Source of the format: UEFI 2.10, section 5.3.

mod copy;
mod mbr;
mod plan;

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};

use crate::{bytes::memory_len, device::Device, layout::Guid};

use copy::TableCopy;
pub use mbr::is_protective;
pub use plan::{Plan, create, plan_growth};

/// Entries of a table that [`create`] makes.
pub const ENTRIES: u32 = 128;

/// A table with more entries than this is none of ours, and would make us read without bound.
const ENTRIES_MAX: u32 = 512;

/// An entry that is in use. Places are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number as firmware and the kernel count, from 1.
    pub number: u32,
    /// Label.
    pub label: String,
    /// What it is for.
    pub type_guid: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Where it starts on the disk.
    pub start: u64,
    /// How long it is.
    pub size: u64,
}

/// What [`read`] found: at least one of the two copies is valid.
#[derive(Clone, Debug)]
pub struct Table {
    /// Bytes in a logical block of the disk.
    pub block_size: u32,
    /// Blocks of the disk.
    pub blocks: u64,
    /// The disk's GUID.
    pub disk_guid: Guid,
    /// The partitions, by number: the primary copy's, or where that is damaged the backup's.
    pub partitions: Vec<Partition>,
    /// Whether LBA 0 says that the disk has a GPT.
    protective_mbr: bool,
    primary: Option<TableCopy>,
    /// The valid copy at the last block, or else where the primary says.
    backup: Option<TableCopy>,
}

/// Why a table cannot be read, made or grown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// The device refused a write.
    #[error("{doing}: {error}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// The device's own words.
        error: String,
    },
    /// Neither copy of the table is valid.
    #[error("no valid partition table: primary: {primary}; backup: {backup}")]
    NoTable {
        /// What is wrong with the copy at LBA 1.
        primary: Defect,
        /// What is wrong with the copy in the last block.
        backup: Defect,
    },
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
    /// A partition that no entry can describe: no number of the table's, not in whole blocks, or too long a label.
    #[error("partition {0} cannot be described in a partition table")]
    Entry(u32),
}

/// What is wrong with one copy of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The device does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// There is no such block, or the entries end beyond the disk.
    #[error("it does not lie on the disk")]
    Place,
    /// The header does not begin as one.
    #[error("no signature")]
    Signature,
    /// A header longer than those that are written.
    #[error("a header of {0} bytes")]
    HeaderSize(u32),
    /// The header's checksum is wrong.
    #[error("the header's checksum is wrong")]
    HeaderChecksum,
    /// A header that was copied from elsewhere.
    #[error("the header is that of block {0}")]
    OtherBlock(u64),
    /// Entries longer than those that are written.
    #[error("entries of {0} bytes")]
    EntrySize(u32),
    /// No entries, or more than anybody writes.
    #[error("{0} entries")]
    EntryCount(u32),
    /// The first usable block comes after the last.
    #[error("no usable blocks")]
    UsableBlocks,
    /// The entries' checksum is wrong.
    #[error("the entries' checksum is wrong")]
    EntriesChecksum,
}

/// Why a label leads to no partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// No partition has it.
    #[error("there is no partition {0}")]
    Missing(String),
    /// More than one has it.
    #[error("there is more than one partition {0}")]
    Ambiguous(String),
    /// The disk ends before the partition does.
    #[error("{0}: beyond its end")]
    BeyondDisk(String),
}

/// One of the writes that make a table.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Table {
    /// The partition with this label.
    ///
    /// # Errors
    /// If there is none, more than one, or one that ends beyond the disk.
    pub fn find(&self, label: &str) -> Result<&Partition, FindError> {
        let mut named = self.partitions.iter().filter(|it| it.label == label);
        let found = named.next().ok_or(FindError::Missing(label.into()))?;
        if named.next().is_some() {
            return Err(FindError::Ambiguous(label.into()));
        }
        let disk = self.blocks.saturating_mul(self.block_size.into());
        if found.start.saturating_add(found.size) > disk {
            return Err(FindError::BeyondDisk(label.into()));
        }
        Ok(found)
    }

    /// Whether the primary copy is valid, the only one that Linux looks at by itself.
    pub fn has_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Whether both copies are valid, and the protective MBR.
    pub fn is_whole(&self) -> bool {
        self.protective_mbr && self.primary.is_some() && self.backup.is_some()
    }

    fn best(&self) -> Option<&TableCopy> {
        self.primary.as_ref().or(self.backup.as_ref())
    }
}

/// Bytes in a block of a disk that can have a table.
fn block_size(size: u32) -> Result<u64, GptError> {
    let fits = (512..=4096).contains(&size) && size.is_power_of_two();
    fits.then_some(size.into()).ok_or(GptError::BlockSize(size))
}

/// Reads the table of a disk. Does not write.
///
/// # Errors
/// [`GptError::NoTable`], if no copy is valid; [`GptError::BlockSize`].
pub fn read<D: Device>(disk: &mut D) -> Result<Table, GptError> {
    let bs = block_size(disk.block_size())?;
    let blocks = disk.size().checked_div(bs).unwrap_or(0);
    let last = blocks.saturating_sub(1);
    let mut first = vec![0; memory_len(bs)];
    let protective_mbr = disk.read_at(0, &mut first).is_ok() && is_protective(&first);
    let primary = TableCopy::read(disk, bs, blocks, 1);
    let mut backup = TableCopy::read(disk, bs, blocks, last);
    if let (Err(_), Ok(copy)) = (&backup, &primary)
        && copy.alternate_lba() != last
        && copy.alternate_lba() > 1
    {
        backup = TableCopy::read(disk, bs, blocks, copy.alternate_lba());
    }
    let (disk_guid, partitions) = match (&primary, &backup) {
        (Ok(copy), _) | (Err(_), Ok(copy)) => (copy.disk_guid(), copy.partitions(bs)),
        (Err(primary), Err(backup)) => {
            let (primary, backup) = (primary.clone(), backup.clone());
            return Err(GptError::NoTable { primary, backup });
        }
    };
    Ok(Table {
        block_size: disk.block_size(),
        blocks,
        disk_guid,
        partitions,
        protective_mbr,
        primary: primary.ok(),
        backup: backup.ok(),
    })
}

/// Makes planned writes.
///
/// # Errors
/// When the device refuses one. What was written of a growth until then leaves a table that [`read`] accepts.
pub fn apply<D: Device>(disk: &mut D, steps: &[Step]) -> Result<(), GptError> {
    for step in steps {
        let (doing, result) = match step {
            Step::Write { offset, bytes } => {
                ("writing the partition table", disk.write_at(*offset, bytes))
            }
            Step::Flush => ("flushing the partition table", disk.flush()),
        };
        result.map_err(|error| GptError::Device {
            doing,
            error: error.to_string(),
        })?;
    }
    Ok(())
}
