//! The partition table of a disk image, as it is planned for a new one and shown of one that is there. How it is encoded
//! and read is boot-core's.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use boot_core::gpt;
use boot_core::layout::Guid;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::output::image::{Image, Region};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Partition {
    pub label: String,
    #[serde(serialize_with = "as_text")]
    pub kind: Guid,
    #[serde(serialize_with = "as_text")]
    pub guid: Guid,
    /// Where it starts on the disk, in bytes.
    pub start: u64,
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

fn as_text<S: Serializer>(guid: &Guid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(guid)
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
    Guid(bytes)
}

/// A disk image, and the table of the sector size that fits it.
pub fn open(path: &Path) -> Result<(Image, Table)> {
    let what = || format!("reading the disk image {}", path.display());
    read(File::open(path).with_context(what)?).with_context(what)
}

pub(crate) fn read(file: File) -> Result<(Image, Table)> {
    let mut image = Image::new(file, 512)?;
    for sector_size in [512, 4096] {
        image = image.in_sectors(sector_size);
        if let Ok(found) = gpt::read(&mut image) {
            let table = Table::of(&image, found);
            return Ok((image, table));
        }
    }
    bail!("there is no valid GUID partition table, at either sector size, in either copy")
}

impl Table {
    fn of(image: &Image, found: gpt::Table) -> Self {
        let partitions = found.partitions.into_iter().map(|partition| Partition {
            label: partition.label,
            kind: partition.type_guid,
            guid: partition.guid,
            start: partition.start,
            size: partition.size,
        });
        Self {
            disk: found.disk_guid,
            sector_size: found.block_size,
            size: boot_core::Device::size(image),
            partitions: partitions.collect(),
        }
    }

    /// The partition with a label.
    pub fn find(&self, label: &str) -> Result<&Partition> {
        self.partitions
            .iter()
            .find(|p| p.label == label)
            .with_context(|| format!("the disk has no partition `{label}`"))
    }

    /// The partition with a label, in the image that the table is of.
    pub fn region(&self, image: &Image, label: &str) -> Result<Region> {
        let found = self.find(label)?;
        Ok(Region::new(image.clone(), found.start, found.size))
    }

    /// Writes protective MBR and both copies of the table to the start and end of a disk.
    pub fn write(&self, image: &mut Image) -> Result<()> {
        let partitions: Vec<gpt::Partition> = (1..)
            .zip(&self.partitions)
            .map(|(number, partition)| gpt::Partition {
                number,
                label: partition.label.clone(),
                type_guid: partition.kind,
                guid: partition.guid,
                start: partition.start,
                size: partition.size,
            })
            .collect();
        let steps = gpt::create(self.disk, self.sector_size, self.size, &partitions)?;
        Ok(gpt::apply(image, &steps)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

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
            let again = || read(file.try_clone().unwrap()).map(|(_, table)| table);
            let mut image = Image::new(file.try_clone().unwrap(), sector).unwrap();
            table.write(&mut image).unwrap();
            assert_eq!(again().unwrap(), table);
            assert_eq!(table.find("state").unwrap().start, 3 * MIB);
            assert!(table.find("boot-a").is_err());
            file.write_all_at(&[0xff; 64], u64::from(sector)).unwrap();
            assert_eq!(again().unwrap(), table, "the backup is used");
            file.write_all_at(&[0xff; 64], size - u64::from(sector))
                .unwrap();
            assert!(again().is_err());
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(read(file.try_clone().unwrap()).is_err());
        file.set_len(100_000).unwrap();
        assert!(read(file).is_err());
    }

    #[test]
    fn a_partition_past_the_end_is_refused() {
        let mut table = table(512);
        table.size = 4 * MIB;
        let mut image = Image::new(tempfile::tempfile().unwrap(), 512).unwrap();
        assert!(table.write(&mut image).is_err());
    }

    #[test]
    fn derived_guids_depend_on_each_word() {
        assert_eq!(derived_guid(&["a", "b"]), derived_guid(&["a", "b"]));
        assert_ne!(derived_guid(&["a", "b"]), derived_guid(&["ab", ""]));
    }
}
