//! Block devices by the kernel's names, and what the kernel calls partitions.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use block_file::{Access, BlockFile};

use crate::failure::{Context, Failure};
use crate::sys;

/// Opens the device with the kernel's name `name`.
///
/// # Errors
/// When it is not there, or is not a block device.
pub fn open(name: &str, access: Access) -> Result<BlockFile, Failure> {
    let path = Path::new("/dev").join(name);
    BlockFile::open(&path, access).context("opening", path.display())
}

/// Tells the kernel that partition `number` of `disk` now has `size` bytes.
pub(crate) fn resize_partition(
    disk: &BlockFile,
    number: u32,
    start: u64,
    size: u64,
) -> Result<(), Failure> {
    sys::partition_resize(disk.as_fd(), number, start, size).context(
        "resizing the kernel's view of",
        format_args!("{} partition {number}", disk.path().display()),
    )
}

/// Makes the kernel read the table of `disk` again.
pub(crate) fn reread_partitions(disk: &BlockFile) -> Result<(), Failure> {
    sys::reread_partitions(disk.as_fd()).context(
        "reading the partition table again of",
        disk.path().display(),
    )
}

/// A number from a file of sysfs.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
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
