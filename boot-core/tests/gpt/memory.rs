//! A disk in memory that keeps a log of its writes and flushes.

use std::io;
use std::ops::Range;

use boot_core::Device;

/// One entry of the log.
#[derive(Debug, Clone)]
pub(crate) enum Logged {
    Write(usize, Vec<u8>),
    Flush,
}

/// The disk.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    pub(crate) block_size: u32,
    pub(crate) log: Vec<Logged>,
    /// Reads of blocks that overlap this range fail.
    pub(crate) bad_reads: Option<Range<u64>>,
}

impl Memory {
    pub(crate) fn new(bytes: Vec<u8>, block_size: u32) -> Self {
        Self {
            bytes,
            block_size,
            log: Vec::new(),
            bad_reads: None,
        }
    }
}

impl Device for Memory {
    type Error = io::Error;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        assert_eq!(offset % u64::from(self.block_size), 0);
        assert_eq!(buf.len() % self.block_size as usize, 0);
        let end = offset + buf.len() as u64;
        if let Some(bad) = &self.bad_reads
            && bad.start < end
            && offset < bad.end
        {
            return Err(io::Error::other("a bad block"));
        }
        let at = offset as usize;
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        assert_eq!(offset % u64::from(self.block_size), 0);
        assert_eq!(buf.len() % self.block_size as usize, 0);
        let at = offset as usize;
        self.bytes[at..at + buf.len()].copy_from_slice(buf);
        self.log.push(Logged::Write(at, buf.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.push(Logged::Flush);
        Ok(())
    }
}
