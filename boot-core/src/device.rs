//! The one edge to storage: a block device, or one partition of it.

use alloc::vec;
use core::fmt::{Debug, Display};

use crate::bytes::{STRUCTURE, put};

/// A partition, addressed in bytes from its start.
///
/// # Contract
/// Offsets and lengths are multiples of [`block_size`](Self::block_size). What `read_at` returns after
/// a `flush` comes from the device and not from a cache in between: a commit is believed because it
/// was read back.
pub trait Device {
    /// What goes wrong; shown to people, so its text names the device.
    type Error: Debug + Display;

    /// Bytes in a logical block: 512 or 4096.
    fn block_size(&self) -> u32;

    /// Bytes in the partition.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes `buf` at `offset`.
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Self::Error>;

    /// Returns once everything written before is on the medium.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

impl<D: Device + ?Sized> Device for &mut D {
    type Error = D::Error;

    fn block_size(&self) -> u32 {
        (**self).block_size()
    }

    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        (**self).read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Self::Error> {
        (**self).write_at(offset, buf)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        (**self).flush()
    }
}

/// The device's block size as a length in memory.
pub(crate) fn block_len<D: Device>(device: &D) -> usize {
    usize::try_from(device.block_size())
        .unwrap_or(STRUCTURE)
        .max(STRUCTURE)
}

/// Reads the structure that starts the block at `offset`.
pub(crate) fn read_structure<D: Device>(
    device: &mut D,
    offset: u64,
) -> Result<[u8; STRUCTURE], D::Error> {
    let mut block = vec![0; block_len(device)];
    device.read_at(offset, &mut block)?;
    Ok(block.first_chunk().copied().unwrap_or([0; STRUCTURE]))
}

/// Writes `structure` as one whole block, the rest of it zero. Does not flush.
pub(crate) fn write_structure<D: Device>(
    device: &mut D,
    offset: u64,
    structure: &[u8; STRUCTURE],
) -> Result<(), D::Error> {
    let mut block = vec![0; block_len(device)];
    put(&mut block, 0, structure);
    device.write_at(offset, &block)
}

/// Why a block may not be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError<E: Debug + Display> {
    /// The device refused.
    #[error("{0}")]
    Device(E),
    /// It was written, and the device does not give it back.
    #[error("it was written, and cannot be read back: {0}")]
    Unreadable(E),
    /// What was read back is not what was written.
    #[error("it was written, but other bytes were read back")]
    ReadBack,
}

/// Writes `structure` as one whole block, the rest of it zero, flushes, and looks whether it is there.
pub(crate) fn write_and_read_back<D: Device>(
    device: &mut D,
    offset: u64,
    structure: &[u8; STRUCTURE],
) -> Result<(), WriteError<D::Error>> {
    write_structure(device, offset, structure).map_err(WriteError::Device)?;
    device.flush().map_err(WriteError::Device)?;
    let mut block = vec![0; block_len(device)];
    device
        .read_at(offset, &mut block)
        .map_err(WriteError::Unreadable)?;
    match block.split_first_chunk() {
        Some((back, rest)) if back == structure && rest.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(WriteError::ReadBack),
    }
}

/// What came of the first of four attempts whose place gives back what it was given, or else of the last one. A write
/// that the device refuses ends it: refusing may take half a minute, and a watchdog runs.
pub(crate) fn first_that_reads_back<E: Debug + Display>(
    attempts: impl Iterator<Item = Result<(), WriteError<E>>>,
) -> Result<(), WriteError<E>> {
    const MOST: usize = 4;
    let mut outcome = Err(WriteError::ReadBack);
    for attempt in attempts.take(MOST) {
        outcome = attempt;
        if matches!(outcome, Ok(()) | Err(WriteError::Device(_))) {
            break;
        }
    }
    outcome
}
