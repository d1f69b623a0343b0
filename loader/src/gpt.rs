//! The partition table of the disk that the loader was loaded from: where each label lies.
//!
//! The source is UEFI 2.11, section 5.3. Both copies are read by the same code; the primary is taken when it checks,
//! else the backup. The loader never writes the table. What it takes is exactly what the initrd agent takes, which may
//! move the table: where the specification leaves room (longer headers and entries, which nobody writes), both refuse,
//! so that they cannot find different partitions on one disk.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use boot_core::Device;
use boot_core::layout::Guid;
use crc::{CRC_32_ISO_HDLC, Crc};

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Room for more entries than any of our layouts has, so that a damaged header cannot ask for gigabytes.
const MAX_ENTRIES: u32 = 512;
const ENTRY_SIZE: usize = 128;
const HEADER_SIZE: u32 = 92;

/// What a table's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The disk's GUID.
    pub disk_guid: Guid,
    /// First block of the entries.
    pub entries_lba: u64,
    /// Bytes that the entries take.
    pub entries_bytes: usize,
    entries_crc: u32,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, counted from 1.
    pub number: u32,
    /// Its label.
    pub label: String,
    /// Its own GUID.
    pub guid: Guid,
    /// Its first block.
    pub first: u64,
    /// Its last block.
    pub last: u64,
}

/// Why a table is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptError {
    /// No signature, or a length or size that no table has.
    Header,
    /// The header's checksum is wrong.
    HeaderChecksum,
    /// The entries' checksum is wrong.
    EntriesChecksum,
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GptError::Header => "no partition table",
            GptError::HeaderChecksum => "the checksum of the partition table's header is wrong",
            GptError::EntriesChecksum => "the checksum of the partition table's entries is wrong",
        })
    }
}

/// Why a label leads to no partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// No partition has it.
    Missing,
    /// More than one has it.
    Ambiguous,
    /// The partition does not end on the disk.
    Bounds,
}

/// Reads the table of a disk: the primary copy, or where that does not check the backup in the last block.
///
/// # Errors
/// One line for people, saying what is wrong with each copy.
pub fn read<D: Device>(disk: &mut D) -> Result<(Header, Vec<Partition>), String> {
    read_copy(disk, 1).or_else(|primary| {
        let last = last_block(disk);
        read_copy(disk, last)
            .map_err(|backup| format!("primary partition table: {primary}; backup: {backup}"))
    })
}

/// Reads the copy whose header is in block `lba`.
fn read_copy<D: Device>(disk: &mut D, lba: u64) -> Result<(Header, Vec<Partition>), String> {
    let size = u64::from(disk.block_size());
    let block = usize::try_from(size).unwrap_or(0);
    let offset = |lba: u64| lba.checked_mul(size).ok_or("an address beyond the disk");
    let mut buffer = alloc::vec![0; block];
    disk.read_at(offset(lba)?, &mut buffer)
        .map_err(|error| error.to_string())?;
    let header = Header::parse(&buffer, lba).map_err(|error| error.to_string())?;
    let mut entries = alloc::vec![0; header.entries_bytes.next_multiple_of(block.max(1))];
    disk.read_at(offset(header.entries_lba)?, &mut entries)
        .map_err(|error| error.to_string())?;
    let partitions = header
        .partitions(&entries)
        .map_err(|error| error.to_string())?;
    Ok((header, partitions))
}

fn last_block<D: Device>(disk: &D) -> u64 {
    let blocks = disk.size().checked_div(disk.block_size().into());
    blocks.unwrap_or(0).saturating_sub(1)
}

/// The partition with this label, of a disk whose last block is `last`.
///
/// # Errors
/// If there is none, more than one, or one that ends beyond the disk.
pub fn named<'t>(
    partitions: &'t [Partition],
    label: &str,
    last: u64,
) -> Result<&'t Partition, Unusable> {
    let mut named = partitions.iter().filter(|it| it.label == label);
    let found = named.next().ok_or(Unusable::Missing)?;
    if named.next().is_some() {
        return Err(Unusable::Ambiguous);
    }
    if found.last > last {
        return Err(Unusable::Bounds);
    }
    Ok(found)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_le_bytes(*b))
}

impl Header {
    /// Reads the header from the block at `lba`.
    ///
    /// # Errors
    /// If the block holds no header that checks, or the header of another block.
    pub fn parse(block: &[u8], lba: u64) -> Result<Header, GptError> {
        if !block.starts_with(SIGNATURE) {
            return Err(GptError::Header);
        }
        let field = |at| u32_at(block, at).ok_or(GptError::Header);
        let address = |at| u64_at(block, at).ok_or(GptError::Header);
        if field(12)? != HEADER_SIZE {
            return Err(GptError::Header);
        }
        let mut header = block.first_chunk::<92>().copied().ok_or(GptError::Header)?;
        if let Some(crc) = header.get_mut(16..20) {
            crc.fill(0);
        }
        if CRC32.checksum(&header) != field(16)? {
            return Err(GptError::HeaderChecksum);
        }
        let (count, entry_size) = (field(80)?, field(84)?);
        let (first_usable, last_usable) = (address(40)?, address(48)?);
        let entries_lba = address(72)?;
        if address(24)? != lba
            || usize::try_from(entry_size) != Ok(ENTRY_SIZE)
            || !(1..=MAX_ENTRIES).contains(&count)
            || first_usable > last_usable
            || entries_lba < 2
        {
            return Err(GptError::Header);
        }
        let count = usize::try_from(count).map_err(|_| GptError::Header)?;
        Ok(Header {
            disk_guid: block
                .get(56..)
                .and_then(|b| b.first_chunk())
                .copied()
                .map(Guid)
                .ok_or(GptError::Header)?,
            entries_lba,
            entries_bytes: count.saturating_mul(ENTRY_SIZE),
            entries_crc: field(88)?,
        })
    }

    /// Reads the partitions from the blocks that hold the entries.
    ///
    /// # Errors
    /// If the entries' checksum is wrong.
    pub fn partitions(&self, entries: &[u8]) -> Result<Vec<Partition>, GptError> {
        let entries = entries.get(..self.entries_bytes).ok_or(GptError::Header)?;
        if CRC32.checksum(entries) != self.entries_crc {
            return Err(GptError::EntriesChecksum);
        }
        Ok(entries
            .chunks_exact(ENTRY_SIZE)
            .zip(1..)
            .filter_map(|(entry, number)| partition(entry, number))
            .collect())
    }
}

fn partition(entry: &[u8], number: u32) -> Option<Partition> {
    let type_guid = entry.get(..16)?;
    if type_guid.iter().all(|b| *b == 0) {
        return None;
    }
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    if last < first {
        return None;
    }
    // UCS-2, as the specification has it: what is not a character by itself is none.
    let character = |unit: u16| char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
    let name = entry
        .get(56..128)?
        .chunks_exact(2)
        .filter_map(|c| c.first_chunk())
        .map(|c| u16::from_le_bytes(*c));
    let label = name.take_while(|unit| *unit != 0).map(character).collect();
    Some(Partition {
        number,
        label,
        guid: Guid(*entry.get(16..)?.first_chunk()?),
        first,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table at block 1 with two partitions of four entries.
    fn table() -> (Vec<u8>, Vec<u8>) {
        let mut entries = alloc::vec![0; 4 * 128];
        for (at, label, first, last) in [
            (0usize, "esp-a", 2048u64, 4095u64),
            (2, "boot-a", 4096, 8191),
        ] {
            let entry = &mut entries[at * 128..][..128];
            entry[..32].fill(0x11);
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (unit, to) in label.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
                to.copy_from_slice(&unit.to_le_bytes());
            }
        }
        let mut block = alloc::vec![0; 512];
        block[..8].copy_from_slice(SIGNATURE);
        block[12..16].copy_from_slice(&92u32.to_le_bytes());
        block[24..32].copy_from_slice(&1u64.to_le_bytes());
        block[56..72].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        block[72..80].copy_from_slice(&2u64.to_le_bytes());
        block[80..84].copy_from_slice(&4u32.to_le_bytes());
        block[84..88].copy_from_slice(&128u32.to_le_bytes());
        block[88..92].copy_from_slice(&CRC32.checksum(&entries).to_le_bytes());
        let crc = CRC32.checksum(&block[..92]);
        block[16..20].copy_from_slice(&crc.to_le_bytes());
        (block, entries)
    }

    #[test]
    fn labels_and_bounds_are_read() {
        let (block, entries) = table();
        let header = Header::parse(&block, 1).unwrap();
        assert_eq!(header.entries_lba, 2);
        let found = header.partitions(&entries).unwrap();
        let labels: Vec<_> = found
            .iter()
            .map(|p| (p.number, p.label.as_str(), p.first, p.last))
            .collect();
        assert_eq!(
            labels,
            [(1, "esp-a", 2048, 4095), (3, "boot-a", 4096, 8191)]
        );
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_refused() {
        let (block, _) = table();
        for bit in 0..92 * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&damaged, 1).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_entries_is_refused() {
        let (block, entries) = table();
        let header = Header::parse(&block, 1).unwrap();
        for bit in 0..entries.len() * 8 {
            let mut damaged = entries.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                header.partitions(&damaged),
                Err(GptError::EntriesChecksum),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_label_leads_to_one_partition_that_ends_on_the_disk() {
        let (block, entries) = table();
        let mut found = Header::parse(&block, 1)
            .unwrap()
            .partitions(&entries)
            .unwrap();
        assert_eq!(named(&found, "boot-a", 8191).unwrap().first, 4096);
        assert_eq!(named(&found, "boot-a", 8190), Err(Unusable::Bounds));
        assert_eq!(named(&found, "boot-b", 8191), Err(Unusable::Missing));
        found.push(found[1].clone());
        assert_eq!(named(&found, "boot-a", 8191), Err(Unusable::Ambiguous));
    }

    #[test]
    fn what_the_agent_would_not_take_is_refused() {
        let (block, _) = table();
        // Size of the header, of an entry; number of entries; first usable block; place of the entries.
        let wrong = [(12, 96), (84, 256), (80, 513), (40, 1 << 30), (72, 1)];
        for (at, value) in wrong {
            let mut other = block.clone();
            other[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
            let size = if at == 12 { 96 } else { 92 };
            other[16..20].fill(0);
            let crc = CRC32.checksum(&other[..size]);
            other[16..20].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(Header::parse(&other, 1), Err(GptError::Header), "{at}");
        }
    }

    #[test]
    fn a_header_of_another_block_or_a_short_one_is_refused() {
        let (block, _) = table();
        assert_eq!(Header::parse(&block, 7), Err(GptError::Header));
        assert_eq!(Header::parse(&block[..60], 1), Err(GptError::Header));
        assert_eq!(Header::parse(&[], 1), Err(GptError::Header));
    }
}
