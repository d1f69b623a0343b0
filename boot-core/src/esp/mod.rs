//! An EFI system partition: FAT32 with the loader at the removable-media path, and nothing else.
//!
//! FAT has no commit, so an ESP is never changed: it is written anew as a whole, and the machine has two. Details:
//! docs/formats/esp.md.
//!
//! ```text
//!  1  the first 32 blocks are zeroed, flushed: firmware finds no filesystem and takes the other ESP
//!  2  both FATs, directories and the loader are written, flushed, read back
//!  3  the first 32 blocks are written, flushed, read back: from here on firmware finds the new loader
//! ```
//!
//! Until the boot sector goes in step 1 the old filesystem is whole; from when it comes in step 3 the new one is.
//! Firmware never meets a half of either.

mod read;

use alloc::{format, string::String, vec};
use core::fmt::Display;

pub use read::read_loader;

use crate::{
    Device,
    bytes::{disk_len, memory_len, put},
    types::Architecture,
};

/// Largest loader that is read or written.
pub const LOADER_MAX: usize = 16 << 20;

/// Blocks before the first FAT: boot sector, FSInfo, and their copies.
const RESERVED: u64 = 32;
const FATS: u64 = 2;
/// FAT32 has at least so many clusters; fewer, and firmware reads it as FAT16.
const CLUSTERS_MIN: u64 = 65_525;
const ROOT_CLUSTER: u32 = 2;
const EFI_CLUSTER: u32 = 3;
const BOOT_CLUSTER: u32 = 4;
const FILE_CLUSTER: u32 = 5;
const END: u32 = 0x0fff_ffff;
const END_MIN: u32 = 0x0fff_fff8;
const ENTRY: usize = 32;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const LABEL: u8 = 0x08;
/// 1980-01-01, where FAT's time begins: an ESP depends on nothing but the loader.
const DATE: u16 = 0x0021;
/// What is written or compared at a time.
const STEP: usize = 65_536;

/// Why there is no ESP to write, or no loader on one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EspError<E: Display> {
    /// The partition is too small for FAT32, or for the loader.
    #[error("the partition is too small for a FAT32 filesystem with the loader")]
    TooSmall,
    /// A loader that is empty or too large.
    #[error("a loader has 1 byte to 16 MiB, this one has {0}")]
    Loader(usize),
    /// No FAT32 filesystem.
    #[error("holds no FAT32 filesystem")]
    NoFilesystem,
    /// A filesystem without our file.
    #[error("has no {0}")]
    NoLoader(&'static str),
    /// A chain of clusters that leads nowhere.
    #[error("its filesystem is damaged")]
    Damaged,
    /// The device gave back something else than was written.
    #[error("what was read back differs from what was written, at byte {0}")]
    ReadBack(u64),
    /// The device refused.
    #[error("{0}")]
    Device(E),
}

/// The loader's file in `EFI/BOOT`, which firmware starts without having been told to.
pub fn file_name(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "BOOTX64.EFI",
        Architecture::Aarch64 => "BOOTAA64.EFI",
    }
}

/// Its path on the ESP, as firmware wants it.
pub fn path(architecture: Architecture) -> String {
    format!("\\EFI\\BOOT\\{}", file_name(architecture))
}

/// The same as a directory has it: eight characters, three characters.
fn short_name(architecture: Architecture) -> [u8; 11] {
    match architecture {
        Architecture::X86_64 => *b"BOOTX64 EFI",
        Architecture::Aarch64 => *b"BOOTAA64EFI",
    }
}

/// An ESP that is to be written.
#[derive(Clone, Debug)]
pub struct Esp<'a> {
    loader: &'a [u8],
    name: [u8; 11],
    /// Bytes in a block, which is a cluster as well.
    block: u64,
    /// Blocks of the partition.
    blocks: u64,
    /// Blocks of a FAT.
    fat: u64,
}

impl<'a> Esp<'a> {
    /// One with `loader` for a partition of `size` bytes in blocks of `block_size`.
    fn new(
        loader: &'a [u8],
        architecture: Architecture,
        block_size: u32,
        size: u64,
    ) -> Option<Self> {
        let block = u64::from(block_size);
        let blocks = size.checked_div(block)?;
        // As many entries of 4 bytes as there are clusters, and two.
        let entries = blocks.checked_sub(RESERVED)?.checked_add(2)?;
        let fat = entries.div_ceil(block.checked_div(4)?.checked_add(FATS)?);
        let esp = Self {
            loader,
            name: short_name(architecture),
            block,
            blocks,
            fat,
        };
        let clusters = esp.clusters()?;
        let fits = clusters >= CLUSTERS_MIN && esp.used()? <= blocks;
        (fits && u32::try_from(blocks).is_ok()).then_some(esp)
    }

    fn clusters(&self) -> Option<u64> {
        self.blocks.checked_sub(self.data_start()?)
    }

    /// The block of the first cluster, whose number is 2.
    fn data_start(&self) -> Option<u64> {
        self.fat.checked_mul(FATS)?.checked_add(RESERVED)
    }

    fn file_clusters(&self) -> u64 {
        disk_len(self.loader.len()).div_ceil(self.block)
    }

    /// Blocks up to the end of the loader; what follows is free and never looked at.
    fn used(&self) -> Option<u64> {
        let directories = u64::from(FILE_CLUSTER.checked_sub(ROOT_CLUSTER)?);
        self.data_start()?
            .checked_add(directories)?
            .checked_add(self.file_clusters())
    }

    /// The boot sector.
    fn boot_sector(&self, bytes: &mut [u8]) {
        let short = |value: u64| u16::try_from(value).unwrap_or(0).to_le_bytes();
        let long = |value: u64| u32::try_from(value).unwrap_or(0).to_le_bytes();
        put(bytes, 0, &[0xeb, 0x58, 0x90]);
        put(bytes, 3, b"STERNPST");
        put(bytes, 11, &short(self.block));
        put(bytes, 13, &[1]);
        put(bytes, 14, &short(RESERVED));
        put(bytes, 16, &[2]);
        put(bytes, 21, &[0xf8]);
        put(bytes, 24, &short(32));
        put(bytes, 26, &short(8));
        put(bytes, 32, &long(self.blocks));
        put(bytes, 36, &long(self.fat));
        put(bytes, 44, &ROOT_CLUSTER.to_le_bytes());
        // Where FSInfo and the copy of the boot sector are.
        put(bytes, 48, &short(1));
        put(bytes, 50, &short(6));
        put(bytes, 64, &[0x80]);
        put(bytes, 66, &[0x29]);
        put(bytes, 67, b"TSPS");
        put(bytes, 71, b"STERNPOST  FAT32   ");
        put(bytes, 510, &[0x55, 0xaa]);
    }

    /// FSInfo: a hint at what is free.
    fn info(&self, bytes: &mut [u8]) {
        let taken = self.file_clusters().saturating_add(3);
        let free = self.clusters().unwrap_or(0).saturating_sub(taken);
        put(bytes, 0, b"RRaA");
        put(bytes, 484, b"rrAa");
        put(
            bytes,
            488,
            &u32::try_from(free).unwrap_or(u32::MAX).to_le_bytes(),
        );
        let next = taken.saturating_add(2);
        put(
            bytes,
            492,
            &u32::try_from(next).unwrap_or(u32::MAX).to_le_bytes(),
        );
        put(bytes, 510, &[0x55, 0xaa]);
    }

    /// The entry of the FAT for a cluster.
    fn next_of(&self, cluster: u64) -> u32 {
        let last = u64::from(FILE_CLUSTER)
            .saturating_add(self.file_clusters())
            .saturating_sub(1);
        match u32::try_from(cluster) {
            Ok(0) => END_MIN,
            Ok(1..FILE_CLUSTER) => END,
            Ok(number) if cluster < last => number.saturating_add(1),
            Ok(_) if cluster == last => END,
            _ => 0,
        }
    }

    fn directory(&self, cluster: u32, bytes: &mut [u8]) {
        let dot = *b".          ";
        let dots = *b"..         ";
        let size = u32::try_from(self.loader.len()).unwrap_or(0);
        let entries: &[([u8; 11], u8, u32, u32)] = match cluster {
            ROOT_CLUSTER => &[
                (*b"STERNPOST  ", LABEL, 0, 0),
                (*b"EFI        ", DIRECTORY, EFI_CLUSTER, 0),
            ],
            EFI_CLUSTER => &[
                (dot, DIRECTORY, EFI_CLUSTER, 0),
                // The root is 0 to its children.
                (dots, DIRECTORY, 0, 0),
                (*b"BOOT       ", DIRECTORY, BOOT_CLUSTER, 0),
            ],
            _ => &[
                (dot, DIRECTORY, BOOT_CLUSTER, 0),
                (dots, DIRECTORY, EFI_CLUSTER, 0),
                (self.name, ARCHIVE, FILE_CLUSTER, size),
            ],
        };
        for (place, (name, attributes, first, size)) in bytes.chunks_exact_mut(ENTRY).zip(entries) {
            let [c0, c1, c2, c3] = first.to_le_bytes();
            put(place, 0, name);
            put(place, 11, &[*attributes]);
            for date in [16, 18, 24] {
                put(place, date, &DATE.to_le_bytes());
            }
            put(place, 20, &[c2, c3]);
            put(place, 26, &[c0, c1]);
            put(place, 28, &size.to_le_bytes());
        }
    }

    /// Fills `bytes` with what belongs into one block.
    fn block_at(&self, index: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        let data = self.data_start().unwrap_or(u64::MAX);
        if index < RESERVED {
            match index {
                0 | 6 => self.boot_sector(bytes),
                1 | 7 => self.info(bytes),
                _ => {}
            }
        } else if let Some(cluster) = index.checked_sub(data) {
            let cluster = cluster.saturating_add(ROOT_CLUSTER.into());
            if let Some(of_file) = cluster.checked_sub(FILE_CLUSTER.into()) {
                let start = memory_len(of_file.saturating_mul(self.block));
                let rest = self.loader.get(start..).unwrap_or_default();
                put(bytes, 0, rest.get(..bytes.len()).unwrap_or(rest));
            } else {
                self.directory(u32::try_from(cluster).unwrap_or(0), bytes);
            }
        } else {
            let of_fat = index
                .saturating_sub(RESERVED)
                .checked_rem(self.fat)
                .unwrap_or(0);
            let first = of_fat.saturating_mul(self.block.checked_div(4).unwrap_or(0));
            for (entry, cluster) in bytes.chunks_exact_mut(4).zip(first..) {
                put(entry, 0, &self.next_of(cluster).to_le_bytes());
            }
        }
    }

    /// Calls `each` with runs of the blocks from `first` to `end`: where, and what belongs there.
    fn runs<E: Display>(
        &self,
        first: u64,
        end: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), EspError<E>>,
    ) -> Result<(), EspError<E>> {
        let size = memory_len(self.block);
        let at_once = disk_len(STEP).checked_div(self.block).unwrap_or(1).max(1);
        let mut index = first;
        while index < end {
            let count = at_once.min(end.saturating_sub(index));
            let mut bytes = vec![0; memory_len(count.saturating_mul(self.block))];
            for (block, number) in bytes.chunks_exact_mut(size).zip(index..) {
                self.block_at(number, block);
            }
            each(index.saturating_mul(self.block), &bytes)?;
            index = index.saturating_add(count);
        }
        Ok(())
    }
}

/// Writes the whole ESP anew, in the order of this module's first lines, and reads it back.
///
/// # Errors
/// [`EspError`]; before anything is written if the loader does not fit.
pub fn write<D: Device>(
    device: &mut D,
    loader: &[u8],
    architecture: Architecture,
) -> Result<(), EspError<D::Error>> {
    if !(1..=LOADER_MAX).contains(&loader.len()) {
        return Err(EspError::Loader(loader.len()));
    }
    let esp = Esp::new(loader, architecture, device.block_size(), device.size())
        .ok_or(EspError::TooSmall)?;
    let used = esp.used().ok_or(EspError::TooSmall)?;
    let nothing = vec![0; memory_len(RESERVED.saturating_mul(esp.block))];
    device.write_at(0, &nothing).map_err(EspError::Device)?;
    device.flush().map_err(EspError::Device)?;
    for (first, end) in [(RESERVED, used), (0, RESERVED)] {
        esp.runs(first, end, |offset, bytes| {
            device.write_at(offset, bytes).map_err(EspError::Device)
        })?;
        device.flush().map_err(EspError::Device)?;
        esp.runs(first, end, |offset, bytes| {
            let mut found = vec![0; bytes.len()];
            device
                .read_at(offset, &mut found)
                .map_err(EspError::Device)?;
            if found == bytes {
                Ok(())
            } else {
                Err(EspError::ReadBack(offset))
            }
        })?;
    }
    Ok(())
}
