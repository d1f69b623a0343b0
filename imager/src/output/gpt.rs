//! GUID partition tables: written for images, read for `inspect`.
//!
//! UEFI specification 2.10, chapter 5. The table has 128 entries of 128 bytes, first usable at 1 MiB,
//! whatever the sector size. Both copies and the protective MBR are written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use gpt_disk_types::{
    Crc32, GptHeader, GptHeaderRevision, GptHeaderSignature, GptPartitionEntry, GptPartitionType,
    Guid, LbaLe, MasterBootRecord, U32Le,
};
use sha2::{Digest as _, Sha256};

const ENTRIES: usize = 128;
const ENTRY: usize = 128;
/// One partition, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Partition {
    pub label: String,
    #[serde(serialize_with = "as_text")]
    pub kind: Guid,
    #[serde(serialize_with = "as_text")]
    pub guid: Guid,
    /// Where it starts on the disk.
    pub start: u64,
    pub size: u64,
}

fn as_text<S: serde::Serializer>(guid: &Guid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(guid)
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    #[serde(serialize_with = "as_text")]
    pub disk: Guid,
    /// Bytes in a logical sector.
    pub sector_size: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// Partitions in the order of their entries.
    pub partitions: Vec<Partition>,
}

/// A GUID made from words, the same for the same words.
#[must_use]
pub fn derived_guid(words: &[&str]) -> Guid {
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // Version 8 (vendor's own), variant RFC 9562; the version sits in the little-endian third field.
    bytes[7] = (bytes[7] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Guid::from_bytes(bytes)
}

impl Table {
    /// The partition with a label.
    pub fn find(&self, label: &str) -> Result<&Partition> {
        self.partitions
            .iter()
            .find(|p| p.label == label)
            .with_context(|| format!("the disk has no partition `{label}`"))
    }

    /// Writes protective MBR and both copies of the table to the start and end of a disk.
    pub fn write(&self, file: &File) -> Result<()> {
        let size = self.size;
        let sector = u64::from(self.sector_size);
        ensure!(
            size.is_multiple_of(sector),
            "a disk of {size} bytes has no whole number of sectors"
        );
        let sectors = size / sector;
        let array_sectors = (ENTRIES * ENTRY) as u64 / sector;
        let last = sectors - 1;
        let mut array = vec![0u8; ENTRIES * ENTRY];
        ensure!(
            self.partitions.len() <= ENTRIES,
            "more than {ENTRIES} partitions"
        );
        for (n, partition) in self.partitions.iter().enumerate() {
            ensure!(
                partition.start + partition.size <= (last - array_sectors) * sector,
                "partition {} ends past the end of the disk",
                partition.label
            );
            let entry = self.entry(partition)?;
            array[n * ENTRY..(n + 1) * ENTRY].copy_from_slice(bytemuck::bytes_of(&entry));
        }
        let header = |my: u64, other: u64, entries: u64| {
            let mut header = GptHeader {
                signature: GptHeaderSignature::EFI_COMPATIBLE_PARTITION_TABLE_HEADER,
                revision: GptHeaderRevision::VERSION_1_0,
                my_lba: LbaLe::from_u64(my),
                alternate_lba: LbaLe::from_u64(other),
                first_usable_lba: LbaLe::from_u64(2 + array_sectors),
                last_usable_lba: LbaLe::from_u64(last - array_sectors - 1),
                disk_guid: self.disk,
                partition_entry_lba: LbaLe::from_u64(entries),
                number_of_partition_entries: U32Le::from_u32(ENTRIES as u32),
                size_of_partition_entry: U32Le::from_u32(ENTRY as u32),
                partition_entry_array_crc32: Crc32(U32Le::from_u32(crc32(&array))),
                ..GptHeader::default()
            };
            header.update_header_crc32();
            header
        };
        let mbr = MasterBootRecord::protective_mbr(sectors);
        file.write_all_at(bytemuck::bytes_of(&mbr), 0)?;
        file.write_all_at(&array, 2 * sector)?;
        file.write_all_at(bytemuck::bytes_of(&header(1, last, 2)), sector)?;
        let backup = last - array_sectors;
        file.write_all_at(&array, backup * sector)?;
        file.write_all_at(bytemuck::bytes_of(&header(last, 1, backup)), last * sector)?;
        Ok(())
    }

    fn entry(&self, partition: &Partition) -> Result<GptPartitionEntry> {
        let sector = u64::from(self.sector_size);
        Ok(GptPartitionEntry {
            partition_type_guid: GptPartitionType(partition.kind),
            unique_partition_guid: partition.guid,
            starting_lba: LbaLe::from_u64(partition.start / sector),
            ending_lba: LbaLe::from_u64((partition.start + partition.size) / sector - 1),
            attributes: Default::default(),
            name: partition
                .label
                .parse()
                .ok()
                .with_context(|| format!("`{}` is no partition label", partition.label))?,
        })
    }

    /// Reads the table of a disk image, trying 512- and 4096-byte sectors and both copies.
    pub fn read(file: &File, size: u64) -> Result<Self> {
        for sector in [512u64, 4096] {
            for copy in [Some(1), (size / sector).checked_sub(1)]
                .into_iter()
                .flatten()
            {
                if let Some(table) = Self::read_copy(file, size, sector, copy)? {
                    return Ok(table);
                }
            }
        }
        bail!("there is no valid GUID partition table, at either sector size, in either copy")
    }

    fn read_copy(file: &File, size: u64, sector: u64, lba: u64) -> Result<Option<Self>> {
        let mut bytes = [0u8; size_of::<GptHeader>()];
        let Some(at) = lba.checked_mul(sector).filter(|at| at + sector <= size) else {
            return Ok(None);
        };
        file.read_exact_at(&mut bytes, at)?;
        let header: GptHeader = bytemuck::pod_read_unaligned(&bytes);
        if !header.is_signature_valid()
            || header.header_size.to_u32() != 92
            || header.calculate_header_crc32() != header.header_crc32
            || header.my_lba.to_u64() != lba
            || header.size_of_partition_entry.to_u32() as usize != ENTRY
            || header.number_of_partition_entries.to_u32() as usize > ENTRIES
        {
            return Ok(None);
        }
        let mut array = vec![0u8; header.number_of_partition_entries.to_u32() as usize * ENTRY];
        let Some(start) = header.partition_entry_lba.to_u64().checked_mul(sector) else {
            return Ok(None);
        };
        if start
            .checked_add(array.len() as u64)
            .is_none_or(|end| end > size)
        {
            return Ok(None);
        }
        file.read_exact_at(&mut array, start)?;
        if crc32(&array) != header.partition_entry_array_crc32.0.to_u32() {
            return Ok(None);
        }
        let mut partitions = Vec::new();
        for bytes in array.chunks_exact(ENTRY) {
            let entry: GptPartitionEntry = bytemuck::pod_read_unaligned(bytes);
            if !entry.is_used() {
                continue;
            }
            let name = entry.name;
            let label: String = name.chars().collect();
            let first = entry.starting_lba.to_u64();
            let end = entry.ending_lba.to_u64();
            let extent = (
                first.checked_mul(sector),
                end.checked_add(1).and_then(|e| e.checked_mul(sector)),
            );
            let (Some(start), Some(end)) = extent else {
                bail!("partition `{label}` lies outside of any disk");
            };
            ensure!(
                start < end && end <= size,
                "partition `{label}` ends past the end of the file"
            );
            partitions.push(Partition {
                label,
                kind: entry.partition_type_guid.0,
                guid: entry.unique_partition_guid,
                start,
                size: end - start,
            });
        }
        Ok(Some(Self {
            disk: header.disk_guid,
            sector_size: sector as u32,
            size,
            partitions,
        }))
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn table(sector_size: u32) -> Table {
        let partition = |label: &str, start, size| Partition {
            label: label.to_owned(),
            kind: derived_guid(&["type"]),
            guid: derived_guid(&[label]),
            start,
            size,
        };
        Table {
            disk: derived_guid(&["disk"]),
            sector_size,
            size: 7 * MIB,
            partitions: vec![
                partition("esp-a", MIB, 2 * MIB),
                partition("state", 3 * MIB, 3 * MIB),
            ],
        }
    }

    #[test]
    fn a_table_is_read_back_at_either_sector_size_and_from_either_copy() {
        for sector in [512, 4096] {
            let table = table(sector);
            let file = tempfile::tempfile().unwrap();
            let size = table.size;
            file.set_len(size).unwrap();
            table.write(&file).unwrap();
            assert_eq!(Table::read(&file, size).unwrap(), table);
            assert_eq!(table.find("state").unwrap().start, 3 * MIB);
            assert!(table.find("boot-a").is_err());
            file.write_all_at(&[0xff; 64], u64::from(sector)).unwrap();
            assert_eq!(
                Table::read(&file, size).unwrap(),
                table,
                "the backup is used"
            );
            file.write_all_at(&[0xff; 64], size - u64::from(sector))
                .unwrap();
            assert!(Table::read(&file, size).is_err());
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(Table::read(&file, 0).is_err());
        file.set_len(100_000).unwrap();
        assert!(Table::read(&file, 100_000).is_err());
    }

    #[test]
    fn a_partition_past_the_end_is_refused() {
        let mut table = table(512);
        table.size = 4 * MIB;
        let file = tempfile::tempfile().unwrap();
        assert!(table.write(&file).is_err());
    }

    #[test]
    fn derived_guids_depend_on_each_word() {
        assert_eq!(derived_guid(&["a", "b"]), derived_guid(&["a", "b"]));
        assert_ne!(derived_guid(&["a", "b"]), derived_guid(&["ab", ""]));
    }
}
