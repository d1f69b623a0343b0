//! The disk that the loader was loaded from, and no other: its partitions by label, as block devices.
//!
//! Labels find a partition on this disk; they never choose the disk. A second disk of the same image is never opened.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;

use boot_core::device_path::{self, HardDrive};
use boot_core::gpt::{self, FindError, Partition, Table};
use boot_core::layout::Label;
use boot_core::{Device, Target, Window};
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;

use super::firmware::{Pages, peek};
use super::medium::Medium;

/// Most bytes in one transfer. Large, because firmware costs per call; bounded, because some drivers allocate as much
/// again for a transfer that they cannot do in place.
const TRANSFER: usize = 8 << 20;

/// A disk with its partition table.
pub(super) struct BootDisk {
    blocks: Blocks,
    table: Table,
    /// Its device path, without the node that ends it.
    path: Vec<u8>,
    /// Number of the partition that the loader lay on, counted from 1.
    loaded_from: u32,
}

impl BootDisk {
    /// Finds the disk by the device path of this program less the partition's node, and reads its partition table, the
    /// backup if the primary does not check.
    ///
    /// # Errors
    /// One line for people, saying what is missing.
    pub(super) fn open() -> Result<BootDisk, String> {
        let image = peek::<LoadedImage>(boot::image_handle())
            .map_err(|_| "firmware has no record of this program")?;
        let device = image
            .device()
            .ok_or("firmware does not say what this program was loaded from")?;
        let whole = peek::<DevicePath>(device)
            .map_err(|_| "what this program was loaded from has no device path")?;
        let mut path = Vec::new();
        let mut loaded_from = None;
        for node in whole.node_iter() {
            let (kind, sub_kind) = node.full_type();
            let kind = (kind.0, sub_kind.0);
            if kind == device_path::HARD_DRIVE {
                let number = node.data().first_chunk();
                loaded_from = number.map(|bytes| u32::from_le_bytes(*bytes));
                break;
            }
            device_path::push(&mut path, kind, node.data());
        }
        let loaded_from =
            loaded_from.ok_or("this program was not loaded from a partition of a disk")?;
        let mut blocks = Blocks::at(&path)?;
        let table = gpt::read(&mut blocks).map_err(|error| error.to_string())?;
        Ok(BootDisk {
            blocks,
            table,
            path,
            loaded_from,
        })
    }

    /// The partition that the loader lay on; none where the table does not have it.
    pub(super) fn loaded_from(&self) -> Option<&Partition> {
        let mut all = self.table.partitions.iter();
        all.find(|it| it.number == self.loaded_from)
    }

    pub(super) fn partition(&self, label: &str) -> Result<Window<Blocks>, FindError> {
        let found = self.table.find(label)?;
        Ok(Window::partition(self.blocks.clone(), found))
    }

    /// The device path of `file` on the partition with this label; none if there is no such partition.
    pub(super) fn path_of(&self, label: &str, file: &str) -> Option<Vec<u8>> {
        let place = HardDrive::of(self.table.find(label).ok()?, self.table.block_size);
        Some(place.path_of(&self.path, file))
    }
}

impl Medium for BootDisk {
    type Part = Window<Blocks>;

    fn id(&self) -> String {
        self.table.disk_guid.to_string()
    }

    fn boot_state(&self) -> Result<Window<Blocks>, String> {
        let found = self.partition(Label::BootState.label());
        found.map_err(|error| error.to_string())
    }

    fn slot(&self, target: Target) -> Result<Window<Blocks>, String> {
        let found = self.partition(target.label_boot());
        found.map_err(|error| error.to_string())
    }
}

/// The blocks of the whole disk. Clones share the one Block I/O: the firmware gives each call the whole disk, one after
/// another.
#[derive(Clone)]
pub(super) struct Blocks(Rc<RefCell<ScopedProtocol<BlockIO>>>);

impl Blocks {
    /// Those of the disk whose device path, without its end, is `path`.
    fn at(path: &[u8]) -> Result<Blocks, String> {
        let mut whole = path.to_vec();
        whole.extend(device_path::END);
        let mut rest: &DevicePath = whole
            .as_slice()
            .try_into()
            .map_err(|_| "the disk's device path is malformed")?;
        let handle = boot::locate_device_path::<BlockIO>(&mut rest)
            .map_err(|_| "the disk has no Block I/O")?;
        if rest.node_iter().next().is_some() {
            return Err("the disk itself has no Block I/O, only something above it".into());
        }
        let block_io =
            peek::<BlockIO>(handle).map_err(|_| "the disk's Block I/O cannot be opened")?;
        if block_io.media().is_logical_partition() {
            return Err("the disk's Block I/O is that of a partition".into());
        }
        Ok(Blocks(Rc::new(RefCell::new(block_io))))
    }

    /// The block at `offset` bytes, if it is one's start and `length` bytes are whole blocks.
    fn block(&self, offset: u64, length: usize) -> Result<u64, String> {
        let size = u64::from(self.block_size());
        let whole = offset.is_multiple_of(size) && (length as u64).is_multiple_of(size);
        let block = offset.checked_div(size).filter(|_| whole);
        block.ok_or_else(|| "not in whole blocks of the disk".into())
    }

    /// Whether the firmware's driver can transfer to or from `buffer` in place.
    fn takes(&self, buffer: *const u8) -> bool {
        let align = self.0.borrow().media().io_align() as usize;
        align <= 1 || (buffer as usize).is_multiple_of(align)
    }
}

impl Device for Blocks {
    type Error = String;

    fn block_size(&self) -> u32 {
        self.0.borrow().media().block_size()
    }

    fn size(&self) -> u64 {
        let last = self.0.borrow().media().last_block();
        let size = u64::from(self.block_size());
        last.saturating_add(1).saturating_mul(size)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), String> {
        let mut lba = self.block(offset, buf.len())?;
        if !self.takes(buf.as_ptr()) {
            let mut pages = Pages::new(buf.len()).map_err(|_| "no memory")?;
            let aligned = pages.get_mut(..buf.len()).unwrap_or_default();
            self.read_at(offset, aligned)?;
            buf.copy_from_slice(aligned);
            return Ok(());
        }
        let size = u64::from(self.block_size());
        let mut block_io = self.0.borrow_mut();
        let media = block_io.media().media_id();
        for part in buf.chunks_mut(TRANSFER) {
            block_io
                .read_blocks(media, lba, part)
                .map_err(|error| format!("the disk cannot be read: {}", error.status()))?;
            lba = lba.saturating_add(part.len() as u64 / size);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), String> {
        let lba = self.block(offset, buf.len())?;
        if !self.takes(buf.as_ptr()) {
            let mut pages = Pages::new(buf.len()).map_err(|_| "no memory")?;
            let aligned = pages.get_mut(..buf.len()).unwrap_or_default();
            aligned.copy_from_slice(buf);
            return self.write_at(offset, aligned);
        }
        let mut block_io = self.0.borrow_mut();
        let media = block_io.media().media_id();
        let written = block_io.write_blocks(media, lba, buf);
        written.map_err(|error| format!("the disk cannot be written: {}", error.status()))
    }

    fn flush(&mut self) -> Result<(), String> {
        let flushed = self.0.borrow_mut().flush_blocks();
        flushed.map_err(|error| format!("the disk cannot be flushed: {}", error.status()))
    }
}
