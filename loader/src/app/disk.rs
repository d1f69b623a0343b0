//! The disk that the loader was loaded from, and no other: its partitions by label, as block devices.
//!
//! Labels find a partition on this disk; they never choose the disk. A second disk of the same image is never opened.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use boot_core::Device;
use boot_core::layout::Guid;
use loader::gpt::{self, Unusable};
use uefi::Status;
use uefi::boot::ScopedProtocol;
use uefi::proto::device_path::{DeviceSubType, DeviceType};
use uefi::proto::media::block::BlockIO;

use super::firmware::{self, Pages};

/// Most bytes in one transfer. Large, because firmware costs per call; bounded, because some drivers allocate as much
/// again for a transfer that they cannot do in place.
const TRANSFER: usize = 8 << 20;

/// A disk with its partition table.
pub(super) struct Disk {
    block_io: SharedBlockIo,
    partitions: Vec<gpt::Partition>,
    /// Its device path, without the node that ends it.
    path: Vec<u8>,
    /// The disk's GUID.
    pub(super) guid: Guid,
    /// Label and GUID of the partition that the loader lay on.
    pub(super) loaded_from: Option<(String, Guid)>,
}

/// The one Block I/O, shared by the partitions: the firmware gives each call the whole disk, one after another.
type SharedBlockIo = Rc<RefCell<ScopedProtocol<BlockIO>>>;

impl Disk {
    /// Opens the disk and reads its partition table, the backup if the primary does not check.
    ///
    /// # Errors
    /// One line for people, saying what is missing.
    pub(super) fn open() -> Result<Disk, String> {
        let boot_disk = firmware::boot_disk()?;
        let media = boot_disk.block_io.media();
        let (block_size, last) = (media.block_size(), media.last_block());
        let mut whole = Partition {
            block_io: Rc::new(RefCell::new(boot_disk.block_io)),
            label: String::from("the disk"),
            first: 0,
            blocks: last.saturating_add(1),
            block_size,
        };
        if !(512..=65536).contains(&block_size) || !block_size.is_power_of_two() {
            return Err(format!(
                "the disk has blocks of {block_size} bytes, which are not supported"
            ));
        }
        let (header, partitions) = gpt::read(&mut whole)?;
        let loaded_from = partitions
            .iter()
            .find(|p| p.number == boot_disk.partition)
            .map(|p| (p.label.clone(), p.guid));
        Ok(Disk {
            block_io: whole.block_io,
            partitions,
            path: boot_disk.path,
            guid: header.disk_guid,
            loaded_from,
        })
    }

    /// The entry with this label.
    fn find(&self, label: &str) -> Result<&gpt::Partition, DiskError> {
        let last = self.block_io.borrow().media().last_block();
        gpt::named(&self.partitions, label, last).map_err(|why| DiskError {
            partition: label.into(),
            what: match why {
                Unusable::Missing => What::Missing,
                Unusable::Ambiguous => What::Ambiguous,
                Unusable::Bounds => What::Bounds,
            },
        })
    }

    /// The device path of `file` on the partition with this label; none if there is no such partition.
    ///
    /// The nodes are those of UEFI 2.10, sections 10.3.5.1 (hard drive) and 10.3.5.4 (file path).
    pub(super) fn path_of(&self, label: &str, file: &str) -> Option<Vec<u8>> {
        let partition = self.find(label).ok()?;
        let blocks = partition
            .last
            .checked_sub(partition.first)?
            .checked_add(1)?;
        let mut hard_drive = Vec::from(partition.number.to_le_bytes());
        hard_drive.extend(partition.first.to_le_bytes());
        hard_drive.extend(blocks.to_le_bytes());
        hard_drive.extend(partition.guid.0);
        // A GPT, and a GUID.
        hard_drive.extend([2, 2]);
        let name = file.encode_utf16().chain([0]);
        let name: Vec<u8> = name.flat_map(u16::to_le_bytes).collect();
        let mut path = self.path.clone();
        for (sub_type, data) in [
            (DeviceSubType::MEDIA_HARD_DRIVE, hard_drive),
            (DeviceSubType::MEDIA_FILE_PATH, name),
        ] {
            firmware::append_node(&mut path, (DeviceType::MEDIA, sub_type), &data);
        }
        path.extend(firmware::END_ENTIRE);
        Some(path)
    }

    /// The partition with this label.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub(super) fn partition(&self, label: &str) -> Result<Partition, DiskError> {
        let found = self.find(label)?;
        let block_size = self.block_io.borrow().media().block_size();
        Ok(Partition {
            block_io: Rc::clone(&self.block_io),
            label: label.into(),
            first: found.first,
            blocks: found.last.saturating_sub(found.first).saturating_add(1),
            block_size,
        })
    }
}

/// One partition of the disk.
pub(super) struct Partition {
    block_io: SharedBlockIo,
    label: String,
    first: u64,
    blocks: u64,
    block_size: u32,
}

/// What went wrong on a partition.
#[derive(Debug)]
pub(super) struct DiskError {
    partition: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Missing,
    Ambiguous,
    Bounds,
    Memory,
    Read(Status),
    Write(Status),
    Flush(Status),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = &self.partition;
        match &self.what {
            What::Missing => write!(f, "there is no partition {partition}"),
            What::Ambiguous => write!(f, "there is more than one partition {partition}"),
            What::Bounds => write!(f, "{partition}: beyond its end"),
            What::Memory => write!(f, "{partition}: no memory"),
            What::Read(status) => write!(f, "{partition}: cannot read: {status}"),
            What::Write(status) => write!(f, "{partition}: cannot write: {status}"),
            What::Flush(status) => write!(f, "{partition}: cannot flush: {status}"),
        }
    }
}

impl Partition {
    fn error(&self, what: What) -> DiskError {
        DiskError {
            partition: self.label.clone(),
            what,
        }
    }

    /// The disk's block at `offset` bytes, if `length` bytes from there lie in the partition in whole blocks.
    fn block(&self, offset: u64, length: usize) -> Result<u64, DiskError> {
        let size = u64::from(self.block_size);
        let length = u64::try_from(length).map_err(|_| self.error(What::Bounds))?;
        let end = offset
            .checked_add(length)
            .ok_or_else(|| self.error(What::Bounds))?;
        let whole = offset.is_multiple_of(size) && length.is_multiple_of(size);
        if !whole || end > self.size() {
            return Err(self.error(What::Bounds));
        }
        self.first
            .checked_add(offset / size)
            .ok_or_else(|| self.error(What::Bounds))
    }

    /// Whether the firmware's driver can transfer to or from `buffer` in place.
    fn is_aligned(&self, buffer: *const u8) -> bool {
        let align = self.block_io.borrow().media().io_align() as usize;
        align <= 1 || (buffer as usize).is_multiple_of(align)
    }
}

impl Device for Partition {
    type Error = DiskError;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_size))
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let mut lba = self.block(offset, buf.len())?;
        if !self.is_aligned(buf.as_ptr()) {
            let mut pages = Pages::new(buf.len()).map_err(|_| self.error(What::Memory))?;
            let aligned = pages.get_mut(..buf.len()).unwrap_or_default();
            self.read_at(offset, aligned)?;
            buf.copy_from_slice(aligned);
            return Ok(());
        }
        let mut block_io = self.block_io.borrow_mut();
        let media = block_io.media().media_id();
        for part in buf.chunks_mut(TRANSFER) {
            block_io
                .read_blocks(media, lba, part)
                .map_err(|error| self.error(What::Read(error.status())))?;
            lba = lba.saturating_add(part.len() as u64 / u64::from(self.block_size));
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        let lba = self.block(offset, buf.len())?;
        if !self.is_aligned(buf.as_ptr()) {
            let mut pages = Pages::new(buf.len()).map_err(|_| self.error(What::Memory))?;
            let aligned = pages.get_mut(..buf.len()).unwrap_or_default();
            aligned.copy_from_slice(buf);
            return self.write_at(offset, aligned);
        }
        let mut block_io = self.block_io.borrow_mut();
        let media = block_io.media().media_id();
        block_io
            .write_blocks(media, lba, buf)
            .map_err(|error| self.error(What::Write(error.status())))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let flushed = self.block_io.borrow_mut().flush_blocks();
        flushed.map_err(|error| self.error(What::Flush(error.status())))
    }
}
