//! A part of a device, as a device: a partition of a disk, reached through the disk.

use core::fmt::{Debug, Display};

use crate::{bytes::disk_len, device::Device, gpt::Partition};

/// A run of bytes of a device. What is read or written outside of it is refused before the device is asked.
#[derive(Clone, Debug)]
pub struct Window<D> {
    device: D,
    start: u64,
    size: u64,
}

/// Why a window cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError<E: Debug + Display> {
    /// It is not within the window.
    #[error("beyond the end of the partition")]
    BeyondEnd,
    /// The device's own error.
    #[error("{0}")]
    Device(E),
}

impl<D: Device> Window<D> {
    /// The `size` bytes of `device` from `start`.
    pub fn new(device: D, start: u64, size: u64) -> Self {
        Self {
            device,
            start,
            size,
        }
    }

    /// A partition of the disk `device`.
    pub fn partition(device: D, partition: &Partition) -> Self {
        Self::new(device, partition.start, partition.size)
    }

    fn place(&self, offset: u64, length: usize) -> Result<u64, WindowError<D::Error>> {
        offset
            .checked_add(disk_len(length))
            .filter(|end| *end <= self.size)
            .and(self.start.checked_add(offset))
            .ok_or(WindowError::BeyondEnd)
    }
}

impl<D: Device> Device for Window<D> {
    type Error = WindowError<D::Error>;

    fn block_size(&self) -> u32 {
        self.device.block_size()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        let at = self.place(offset, buf.len())?;
        self.device.read_at(at, buf).map_err(WindowError::Device)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Self::Error> {
        let at = self.place(offset, buf.len())?;
        self.device.write_at(at, buf).map_err(WindowError::Device)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.device.flush().map_err(WindowError::Device)
    }
}
