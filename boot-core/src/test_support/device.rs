//! A partition in memory that can be made to fail.

use alloc::{vec, vec::Vec};

use crate::device::Device;

/// A partition in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDevice {
    /// What is on it.
    pub bytes: Vec<u8>,
    /// Bytes in a logical block.
    pub block_size: u32,
    /// Reads of blocks that overlap this range fail.
    pub bad_reads: Option<core::ops::Range<u64>>,
    /// So many reads fail, wherever they are, before the next one goes through.
    pub passing_errors: u32,
    /// Writes to blocks that overlap this range fail, after what is before it was written.
    pub bad_writes: Option<core::ops::Range<u64>>,
    /// Writes fail.
    pub read_only: bool,
    /// Writes to blocks that overlap this range are acknowledged and not made.
    pub stuck: Option<core::ops::Range<u64>>,
    /// Where something was written, and how much, in order.
    pub writes: Vec<(u64, usize)>,
    /// How often it was flushed.
    pub flushes: usize,
}

/// What [`MemoryDevice`] says when it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Offset or length not in whole blocks.
    #[error("offset {0} or length {1} is not in whole blocks")]
    Unaligned(u64, usize),
    /// Past the end.
    #[error("offset {0}, length {1} is past the end")]
    PastEnd(u64, usize),
    /// Told to fail.
    #[error("I/O error at {0}")]
    Io(u64),
}

impl MemoryDevice {
    /// All zero, of `size` bytes.
    pub fn new(size: u64, block_size: u32) -> Self {
        Self {
            bytes: vec![0; usize::try_from(size).unwrap_or(0)],
            block_size,
            bad_reads: None,
            passing_errors: 0,
            bad_writes: None,
            read_only: false,
            stuck: None,
            writes: Vec::new(),
            flushes: 0,
        }
    }

    fn range(&self, offset: u64, len: usize) -> Result<core::ops::Range<usize>, MemoryError> {
        let block = u64::from(self.block_size);
        if !offset.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
            return Err(MemoryError::Unaligned(offset, len));
        }
        let start = usize::try_from(offset).map_err(|_| MemoryError::PastEnd(offset, len))?;
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        Ok(start..end.ok_or(MemoryError::PastEnd(offset, len))?)
    }
}

impl Device for MemoryDevice {
    type Error = MemoryError;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        let range = self.range(offset, buf.len())?;
        if touched(self.bad_reads.as_ref(), offset, buf.len()).is_some() {
            return Err(MemoryError::Io(offset));
        }
        if let Some(left) = self.passing_errors.checked_sub(1) {
            self.passing_errors = left;
            return Err(MemoryError::Io(offset));
        }
        buf.copy_from_slice(self.bytes.get(range).unwrap_or_default());
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), MemoryError> {
        let range = self.range(offset, buf.len())?;
        if self.read_only {
            return Err(MemoryError::Io(offset));
        }
        if let Some(bad) = touched(self.bad_writes.as_ref(), offset, buf.len()) {
            let before = usize::try_from(bad.saturating_sub(offset)).unwrap_or(0);
            let place = self.bytes.get_mut(range).unwrap_or_default();
            for (old, new) in place.iter_mut().zip(buf).take(before) {
                *old = *new;
            }
            return Err(MemoryError::Io(bad));
        }
        self.writes.push((offset, buf.len()));
        if touched(self.stuck.as_ref(), offset, buf.len()).is_none()
            && let Some(place) = self.bytes.get_mut(range)
        {
            place.copy_from_slice(buf);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MemoryError> {
        self.flushes = self.flushes.saturating_add(1);
        Ok(())
    }
}

/// Where `bad` starts, if `len` bytes at `offset` touch it.
fn touched(bad: Option<&core::ops::Range<u64>>, offset: u64, len: usize) -> Option<u64> {
    let end = offset.saturating_add(len as u64);
    bad.filter(|bad| bad.start < end && offset < bad.end)
        .map(|bad| bad.start)
}
