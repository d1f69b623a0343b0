//! Reading an ESP: as much of FAT32 as leads to the loader.

use alloc::{vec, vec::Vec};

use super::{
    DIRECTORY, END, END_MIN, ENTRY, EspError, LOADER_MAX, ROOT_CLUSTER, file_name, short_name,
};
use crate::{
    Device,
    bytes::{disk_len, field, memory_len, u8_at, u16_at, u32_at},
    device::block_len,
    types::Architecture,
};

/// Most bytes of a directory that are looked at.
const DIRECTORY_MAX: usize = 64 << 10;
/// Attribute of a volume label, and of every part of a long name.
const NO_FILE: u8 = 0x08;

/// Reads the loader from an ESP, whoever made its filesystem.
pub fn read_loader<D: Device>(
    device: &mut D,
    architecture: Architecture,
) -> Result<Vec<u8>, EspError<D::Error>> {
    let mut volume = Volume::open(device)?;
    let mut entry = Found {
        cluster: volume.root,
        size: 0,
    };
    let path = [
        (*b"EFI        ", true),
        (*b"BOOT       ", true),
        (short_name(architecture), false),
    ];
    for (name, is_directory) in path {
        let directory = volume.chain(entry.cluster, DIRECTORY_MAX)?;
        entry = find(&directory, &name, is_directory)
            .ok_or_else(|| EspError::NoLoader(file_name(architecture)))?;
    }
    let size = memory_len(entry.size.into());
    if !(1..=LOADER_MAX).contains(&size) {
        return Err(EspError::Loader(size));
    }
    let mut loader = volume.chain(entry.cluster, size)?;
    if loader.len() < size {
        return Err(EspError::Damaged);
    }
    loader.truncate(size);
    Ok(loader)
}

/// Where a directory says that something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    cluster: u32,
    size: u32,
}

fn find(directory: &[u8], name: &[u8; 11], is_directory: bool) -> Option<Found> {
    directory
        .chunks_exact(ENTRY)
        .take_while(|entry| u8_at(entry, 0) != 0)
        .find(|entry| {
            let attributes = u8_at(entry, 11);
            field(entry, 0) == *name
                && attributes & NO_FILE == 0
                && (attributes & DIRECTORY != 0) == is_directory
        })
        .map(|entry| Found {
            cluster: u32::from(u16_at(entry, 20)) << 16 | u32::from(u16_at(entry, 26)),
            size: u32_at(entry, 28),
        })
}

/// A FAT32 filesystem that is read.
struct Volume<'d, D> {
    device: &'d mut D,
    /// Bytes of a cluster.
    cluster: u64,
    /// Where the first FAT starts, in bytes.
    fat: u64,
    /// Where cluster 2 starts, in bytes.
    data: u64,
    root: u32,
    /// The block of the FAT that was read last, and where it is.
    fat_block: Option<(u64, Vec<u8>)>,
}

impl<'d, D: Device> Volume<'d, D> {
    fn open(device: &'d mut D) -> Result<Self, EspError<D::Error>> {
        let mut boot = vec![0; block_len(device)];
        device.read_at(0, &mut boot).map_err(EspError::Device)?;
        let sector = u64::from(u16_at(&boot, 11));
        let reserved = u64::from(u16_at(&boot, 14));
        let fats = u64::from(u8_at(&boot, 16)).saturating_mul(u32_at(&boot, 36).into());
        let cluster = u64::from(u8_at(&boot, 13)).saturating_mul(sector);
        let is_fat32 = field(&boot, 510) == [0x55, 0xaa]
            && field(&boot, 82) == *b"FAT32"
            && u16_at(&boot, 22) == 0;
        let blocks = u64::from(device.block_size());
        if !is_fat32 || cluster == 0 || !sector.is_multiple_of(blocks) || fats == 0 {
            return Err(EspError::NoFilesystem);
        }
        Ok(Self {
            device,
            cluster,
            fat: reserved.saturating_mul(sector),
            data: reserved.saturating_add(fats).saturating_mul(sector),
            root: u32_at(&boot, 44),
            fat_block: None,
        })
    }

    /// The bytes of a chain of clusters, up to the first that makes `enough`.
    ///
    /// Clusters that follow one another are one read: the loader does this at every start, and firmware costs per call.
    fn chain(&mut self, first: u32, enough: usize) -> Result<Vec<u8>, EspError<D::Error>> {
        let cluster = memory_len(self.cluster);
        let mut bytes = Vec::new();
        let mut next = first;
        while bytes.len() < enough && next < END_MIN {
            let index = next.checked_sub(ROOT_CLUSTER).ok_or(EspError::Damaged)?;
            let offset = u64::from(index)
                .checked_mul(self.cluster)
                .and_then(|offset| offset.checked_add(self.data))
                .ok_or(EspError::Damaged)?;
            let start = bytes.len();
            let mut end = start;
            loop {
                let last = next;
                end = end.saturating_add(cluster);
                next = self.after(last)?;
                if end >= enough || last.checked_add(1) != Some(next) {
                    break;
                }
            }
            bytes.resize(end, 0);
            self.read(offset, bytes.get_mut(start..).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// What the FAT says comes after a cluster.
    fn after(&mut self, cluster: u32) -> Result<u32, EspError<D::Error>> {
        let size = block_len(self.device);
        let at = self
            .fat
            .saturating_add(u64::from(cluster).saturating_mul(4));
        let within = at.checked_rem(disk_len(size)).unwrap_or(0);
        let offset = at.saturating_sub(within);
        let block = match self.fat_block.take() {
            Some((known, block)) if known == offset => block,
            _ => {
                let mut block = vec![0; size];
                self.read(offset, &mut block)?;
                block
            }
        };
        let next = u32_at(&block, memory_len(within)) & END;
        self.fat_block = Some((offset, block));
        Ok(next)
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), EspError<D::Error>> {
        let end = offset.checked_add(disk_len(buffer.len()));
        if end.is_none_or(|end| end > self.device.size()) {
            return Err(EspError::Damaged);
        }
        self.device
            .read_at(offset, buffer)
            .map_err(EspError::Device)
    }
}
