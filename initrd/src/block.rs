//! Block devices as [`boot_core::Device`]s, and what the kernel calls partitions.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use boot_core::Device;

use crate::failure::{Context, Failure};
use crate::sys;

/// A disk or a partition, through the kernel's cache.
#[derive(Debug)]
pub struct BlockDevice {
    file: File,
    block_size: u32,
    size: u64,
    /// Path under /dev.
    pub path: PathBuf,
}

/// A number from a file of sysfs.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl BlockDevice {
    /// Opens the device with the kernel's name `name`.
    ///
    /// # Errors
    /// When it is not there, or is not a block device.
    pub fn open(name: &str, writable: bool) -> Result<Self, Failure> {
        let path = Path::new("/dev").join(name);
        let sysfs = Path::new("/sys/class/block").join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(&path)
            .context("opening", path.display())?;
        // A partition has its disk's queue one level up.
        let block_size = number(&sysfs.join("queue/logical_block_size"))
            .or_else(|| number(&sysfs.join("../queue/logical_block_size")))
            .or_else(|| {
                let real = fs::canonicalize(&sysfs).ok()?;
                number(&real.parent()?.join("queue/logical_block_size"))
            })
            .and_then(|size| u32::try_from(size).ok())
            .context("reading the logical block size of", path.display())?;
        let sectors = number(&sysfs.join("size")).context("reading the size of", path.display())?;
        Ok(Self {
            file,
            block_size,
            size: sectors.saturating_mul(512),
            path,
        })
    }

    /// Tells the kernel that partition `number` now has `size` bytes.
    pub fn resize_partition(&self, number: u32, start: u64, size: u64) -> Result<(), Failure> {
        sys::partition_resize(self.file.as_fd(), number, start, size).context(
            "resizing the kernel's view of",
            format_args!("{} partition {number}", self.path.display()),
        )
    }

    /// Makes the kernel read the table again.
    pub fn reread_partitions(&self) -> Result<(), Failure> {
        sys::reread_partitions(self.file.as_fd())
            .context("reading the partition table again of", self.path.display())
    }
}

impl Device for BlockDevice {
    type Error = io::Error;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        // A later read must come from the disk, not from our own cache.
        sys::flush_cache(self.file.as_fd())?;
        Ok(())
    }
}

/// The kernel's name of partition `number` of the disk `disk`, and its `major:minor`.
#[must_use]
pub fn partition_name(disk: &str, wanted: u32) -> Option<(String, String)> {
    let folder = Path::new("/sys/class/block").join(disk);
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let found = number(&entry.path().join("partition"))?;
        if found != u64::from(wanted) {
            return None;
        }
        let device = fs::read_to_string(entry.path().join("dev")).ok()?;
        Some((
            entry.file_name().into_string().ok()?,
            device.trim().to_owned(),
        ))
    })
}
