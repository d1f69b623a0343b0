//! Where on a disk things are that others lay out: a FAT's table, the journal of an ext4.

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::disk::Disk;

/// Where ext4's superblock begins.
pub const SUPERBLOCK: u64 = 1024;

/// Where the first file allocation table of an ESP begins, in bytes from the partition's start: behind the reserved
/// sectors that the boot sector counts (FAT specification, `BPB_BytsPerSec` and `BPB_RsvdSecCnt`).
///
/// # Errors
/// There is no such partition.
pub fn first_fat(disk: &Disk, label: &str) -> Result<u64> {
    let mut sector = [0; 512];
    disk.partition(label)?.read(0, &mut sector)?;
    let number = |at: usize| u64::from(sector[at]) | u64::from(sector[at + 1]) << 8;
    ensure!(number(510) == 0xaa55, "{label} has no boot sector");
    Ok(number(11) * number(14))
}

/// The first piece of the journal of `state`, in bytes from the partition's start. At its beginning is what says what
/// the journal holds.
///
/// The superblock has a copy of the journal's inode, the root of its tree of extents (the kernel's `fs/ext4/ext4.h` and
/// `ext4_extents.h`: `s_jnl_blocks`, `ext4_extent_header`, `ext4_extent`).
///
/// # Errors
/// There is no ext4, or none with a journal that is laid out like that.
pub fn journal(disk: &Disk) -> Result<Range<u64>> {
    let mut superblock = [0; 1024];
    disk.partition("state")?.read(SUPERBLOCK, &mut superblock)?;
    let short = |at: usize| u64::from(superblock[at]) | u64::from(superblock[at + 1]) << 8;
    let long = |at: usize| short(at) | short(at + 2) << 16;
    let (copy, extent) = (0x10c, 0x10c + 12);
    ensure!(
        short(0x38) == 0xef53 && superblock[0xfd] == 1,
        "state has no ext4 with a copy of its journal's inode"
    );
    ensure!(
        short(copy) == 0xf30a && short(copy + 6) == 0 && long(extent) == 0,
        "the journal of state is in more pieces than its inode names"
    );
    let block = 1024 << long(0x18);
    let start = long(extent + 8) | short(extent + 6) << 32;
    Ok(start * block..(start + short(extent + 4)) * block)
}
