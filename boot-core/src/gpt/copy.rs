//! One copy of a table: its header as it is on the disk, and its entries.

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};

use super::{Defect, ENTRIES, ENTRIES_MAX, GptError, Partition, Step};
use crate::{
    bytes::{self, CRC, field, memory_len, put, u32_at, u64_at},
    device::Device,
    layout::Guid,
};

const SIGNATURE: [u8; 8] = *b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_SIZE: u32 = 92;
const ENTRY_SIZE: u32 = 128;
const ENTRY_LEN: usize = 128;

/// Where the fields of a header lie.
mod header {
    pub(super) const REVISION: usize = 8;
    pub(super) const SIZE: usize = 12;
    pub(super) const CRC: usize = 16;
    pub(super) const RESERVED: usize = 20;
    pub(super) const MY_LBA: usize = 24;
    pub(super) const ALTERNATE_LBA: usize = 32;
    pub(super) const FIRST_USABLE: usize = 40;
    pub(super) const LAST_USABLE: usize = 48;
    pub(super) const DISK_GUID: usize = 56;
    pub(super) const ENTRIES_LBA: usize = 72;
    pub(super) const ENTRY_COUNT: usize = 80;
    pub(super) const ENTRY_SIZE: usize = 84;
    pub(super) const ENTRIES_CRC: usize = 88;
}

/// Where the fields of an entry lie.
mod entry {
    pub(super) const TYPE: usize = 0;
    pub(super) const GUID: usize = 16;
    pub(super) const FIRST: usize = 32;
    pub(super) const LAST: usize = 40;
    pub(super) const LABEL: usize = 56;
}

/// A valid copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableCopy {
    header: [u8; 92],
    /// The entry array, padded to whole blocks.
    entries: Vec<u8>,
}

/// An entry in use, in blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    bytes: &'a [u8],
    /// Number, from 1.
    pub(super) number: u32,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Entry<'_> {
    /// UCS-2, as the specification has it: what is not a character by itself is none.
    pub(super) fn label(&self) -> String {
        let name: [u8; 72] = field(self.bytes, entry::LABEL);
        name.chunks_exact(2)
            .map(|unit| u16::from_le_bytes(field(unit, 0)))
            .take_while(|unit| *unit != 0)
            .map(|unit| char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    }
}

/// Blocks that an array of `count` entries fills.
pub(super) fn entry_blocks(count: u32, bs: u64) -> u64 {
    let bytes = u64::from(count).saturating_mul(ENTRY_SIZE.into());
    bytes.div_ceil(bs.max(1))
}

impl TableCopy {
    /// Reads the copy whose header is in block `lba` of a disk of `blocks` blocks of `bs` bytes.
    pub(super) fn read<D: Device>(
        disk: &mut D,
        bs: u64,
        blocks: u64,
        lba: u64,
    ) -> Result<Self, Defect> {
        if lba == 0 || lba >= blocks {
            return Err(Defect::Place);
        }
        let mut read = |lba: u64, length: u64| {
            let end = lba.checked_add(length).filter(|end| *end <= blocks);
            let offset = end.and(lba.checked_mul(bs)).ok_or(Defect::Place)?;
            let mut bytes = vec![0; memory_len(length.saturating_mul(bs))];
            match disk.read_at(offset, &mut bytes) {
                Ok(()) => Ok(bytes),
                Err(error) => Err(Defect::Unreadable(error.to_string())),
            }
        };
        let header: [u8; 92] = field(&read(lba, 1)?, 0);
        check(&header, lba)?;
        let entries_lba = u64_at(&header, header::ENTRIES_LBA);
        if entries_lba < 2 {
            return Err(Defect::Place);
        }
        let count = u32_at(&header, header::ENTRY_COUNT);
        let entries = read(entries_lba, entry_blocks(count, bs))?;
        let copy = Self { header, entries };
        if copy.entries_crc() != u32_at(&header, header::ENTRIES_CRC) {
            return Err(Defect::EntriesChecksum);
        }
        Ok(copy)
    }

    /// A copy without a place, of a new table.
    pub(super) fn new(disk: Guid, partitions: &[Partition], bs: u64) -> Result<Self, GptError> {
        let array = entry_blocks(ENTRIES, bs);
        let mut bytes = [0; 92];
        let first_usable = array.saturating_add(2);
        put(&mut bytes, 0, &SIGNATURE);
        put(&mut bytes, header::REVISION, &REVISION.to_le_bytes());
        put(&mut bytes, header::SIZE, &HEADER_SIZE.to_le_bytes());
        put(
            &mut bytes,
            header::FIRST_USABLE,
            &first_usable.to_le_bytes(),
        );
        put(&mut bytes, header::DISK_GUID, &disk.0);
        put(&mut bytes, header::ENTRY_COUNT, &ENTRIES.to_le_bytes());
        put(&mut bytes, header::ENTRY_SIZE, &ENTRY_SIZE.to_le_bytes());
        let mut copy = Self {
            header: bytes,
            entries: vec![0; memory_len(array.saturating_mul(bs))],
        };
        for partition in partitions {
            let wrong = GptError::Entry(partition.number);
            let place = copy.entry_mut(partition.number).ok_or(wrong.clone())?;
            *place = encode(partition, bs).ok_or(wrong)?;
        }
        Ok(copy)
    }

    pub(super) fn my_lba(&self) -> u64 {
        u64_at(&self.header, header::MY_LBA)
    }

    pub(super) fn alternate_lba(&self) -> u64 {
        u64_at(&self.header, header::ALTERNATE_LBA)
    }

    pub(super) fn first_usable(&self) -> u64 {
        u64_at(&self.header, header::FIRST_USABLE)
    }

    pub(super) fn last_usable(&self) -> u64 {
        u64_at(&self.header, header::LAST_USABLE)
    }

    pub(super) fn disk_guid(&self) -> Guid {
        Guid(field(&self.header, header::DISK_GUID))
    }

    pub(super) fn entry_count(&self) -> u32 {
        u32_at(&self.header, header::ENTRY_COUNT)
    }

    /// The entries in use.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let (all, _) = self.entries.as_chunks::<ENTRY_LEN>();
        (1..=self.entry_count())
            .zip(all)
            .filter(|(_, bytes)| field(*bytes, entry::TYPE) != [0; 16])
            .map(|(number, bytes)| Entry {
                bytes,
                number,
                first: u64_at(bytes, entry::FIRST),
                last: u64_at(bytes, entry::LAST),
            })
    }

    /// The same in bytes, but for those that no disk can hold.
    pub(super) fn partitions(&self, bs: u64) -> Vec<Partition> {
        self.entries()
            .filter_map(|it| {
                let blocks = it.last.checked_sub(it.first)?.checked_add(1)?;
                Some(Partition {
                    number: it.number,
                    label: it.label(),
                    type_guid: Guid(field(it.bytes, entry::TYPE)),
                    guid: Guid(field(it.bytes, entry::GUID)),
                    start: it.first.checked_mul(bs)?,
                    size: blocks.checked_mul(bs)?,
                })
            })
            .collect()
    }

    /// Moves the end of a partition.
    pub(super) fn set_last(&mut self, number: u32, last: u64) {
        if let Some(bytes) = self.entry_mut(number) {
            put(bytes, entry::LAST, &last.to_le_bytes());
        }
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut [u8; ENTRY_LEN]> {
        let index = number
            .checked_sub(1)
            .filter(|_| number <= self.entry_count())?;
        let (all, _) = self.entries.as_chunks_mut();
        all.get_mut(usize::try_from(index).ok()?)
    }

    fn entries_crc(&self) -> u32 {
        let length = u64::from(self.entry_count()).saturating_mul(ENTRY_SIZE.into());
        CRC.checksum(self.entries.get(..memory_len(length)).unwrap_or_default())
    }

    /// This table with its header at `lba`, its twin's at `alternate`.
    pub(super) fn placed(
        &self,
        lba: u64,
        alternate: u64,
        entries_lba: u64,
        last_usable: u64,
    ) -> Self {
        let mut copy = self.clone();
        let crc = copy.entries_crc();
        for (at, value) in [
            (header::MY_LBA, lba),
            (header::ALTERNATE_LBA, alternate),
            (header::LAST_USABLE, last_usable),
            (header::ENTRIES_LBA, entries_lba),
        ] {
            put(&mut copy.header, at, &value.to_le_bytes());
        }
        put(&mut copy.header, header::RESERVED, &[0; 4]);
        put(&mut copy.header, header::ENTRIES_CRC, &crc.to_le_bytes());
        bytes::seal(&mut copy.header, header::CRC);
        copy
    }

    /// Entries, flush, header, flush.
    pub(super) fn steps(&self, bs: u64) -> [Step; 4] {
        let mut block = vec![0; memory_len(bs)];
        put(&mut block, 0, &self.header);
        let entries_lba = u64_at(&self.header, header::ENTRIES_LBA);
        [
            Step::Write {
                offset: entries_lba.saturating_mul(bs),
                bytes: self.entries.clone(),
            },
            Step::Flush,
            Step::Write {
                offset: self.my_lba().saturating_mul(bs),
                bytes: block,
            },
            Step::Flush,
        ]
    }
}

/// Whether a header is one, and that of block `lba`.
fn check(bytes: &[u8; 92], lba: u64) -> Result<(), Defect> {
    if field(bytes, 0) != SIGNATURE {
        return Err(Defect::Signature);
    }
    let size = u32_at(bytes, header::SIZE);
    if size != HEADER_SIZE {
        return Err(Defect::HeaderSize(size));
    }
    if !bytes::is_sealed(bytes, header::CRC) {
        return Err(Defect::HeaderChecksum);
    }
    let my_lba = u64_at(bytes, header::MY_LBA);
    if my_lba != lba {
        return Err(Defect::OtherBlock(my_lba));
    }
    let entry_size = u32_at(bytes, header::ENTRY_SIZE);
    if entry_size != ENTRY_SIZE {
        return Err(Defect::EntrySize(entry_size));
    }
    let count = u32_at(bytes, header::ENTRY_COUNT);
    if !(1..=ENTRIES_MAX).contains(&count) {
        return Err(Defect::EntryCount(count));
    }
    if u64_at(bytes, header::FIRST_USABLE) > u64_at(bytes, header::LAST_USABLE) {
        return Err(Defect::UsableBlocks);
    }
    Ok(())
}

/// The entry of a partition; none if it is not in whole blocks, or its label has no place.
fn encode(partition: &Partition, bs: u64) -> Option<[u8; ENTRY_LEN]> {
    let whole = |bytes: u64| bytes.is_multiple_of(bs).then(|| bytes.checked_div(bs))?;
    let first = whole(partition.start)?;
    let last = first.checked_add(whole(partition.size)?)?.checked_sub(1)?;
    let label: Vec<u8> = partition
        .label
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut bytes = [0; ENTRY_LEN];
    if last < first || entry::LABEL.checked_add(label.len())? > bytes.len() {
        return None;
    }
    put(&mut bytes, entry::TYPE, &partition.type_guid.0);
    put(&mut bytes, entry::GUID, &partition.guid.0);
    put(&mut bytes, entry::FIRST, &first.to_le_bytes());
    put(&mut bytes, entry::LAST, &last.to_le_bytes());
    put(&mut bytes, entry::LABEL, &label);
    Some(bytes)
}
