//! A disk in memory whose cache loses what was not flushed, as far as this program wants it to.
//!
//! [`Contents`] is what is on a disk at an instant: cheap to copy, because blocks are shared until they are written.
//! [`Disk`] is one that programs run on, and a log of what they did to it. A flush of one partition flushes the disk:
//! so does the block layer, whichever partition it is asked through.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use boot_core::record::Record;
use boot_core::store::BootState;
use boot_core::{Device, Slot, Target};

/// Bytes that are kept together; the largest logical block.
const BLOCK: usize = 4096;

/// A partition, or the disk as a whole where its table is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// `boot-state`.
    State,
    /// `boot-a`, `boot-b`, `boot-r`.
    Boot(Target),
    /// `root-a`, `root-b`.
    Root(Slot),
    /// All of the disk.
    Whole,
    /// What firmware keeps beside it ([`Nvram`](crate::nvram::Nvram)).
    Firmware,
}

impl Part {
    /// Its size in bytes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::State => boot_core::store::PARTITION_SIZE,
            Self::Boot(_) => boot_core::slot_header::UKI_OFFSET + (64 << 10),
            Self::Root(_) => 64 << 10,
            Self::Whole => 64 << 20,
            Self::Firmware => crate::nvram::SIZE,
        }
    }
}

/// 4096 bytes, and their hash once somebody asked for it.
#[derive(Clone, Debug)]
struct Block {
    bytes: [u8; BLOCK],
    hash: OnceLock<u64>,
}

/// What is on a disk. Blocks that are not there are zero.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    /// Bytes in a sector: 512 or 4096.
    pub(crate) sector: u32,
    blocks: BTreeMap<(Part, u64), Arc<Block>>,
    /// Sectors that cannot be read until they are written.
    bad: BTreeSet<(Part, u64)>,
}

impl Contents {
    /// A disk of zeros.
    pub(crate) fn new(sector: u32) -> Self {
        Self {
            sector,
            blocks: BTreeMap::new(),
            bad: BTreeSet::new(),
        }
    }

    /// Has the sector with the byte at `offset` be unreadable, until it is written.
    pub(crate) fn spoil(&mut self, part: Part, offset: u64) {
        self.bad.insert((part, offset / u64::from(self.sector)));
    }

    /// Whether a device reads all of these bytes.
    pub(crate) fn is_readable(&self, part: Part, offset: u64, length: usize) -> bool {
        let mut bad = self.bad.range(self.sectors(part, offset, length));
        bad.next().is_none()
    }

    fn sectors(&self, part: Part, offset: u64, length: usize) -> Range<(Part, u64)> {
        let sector = u64::from(self.sector);
        let end = (offset + length as u64).div_ceil(sector);
        (part, offset / sector)..(part, end)
    }

    /// Reads `buf` from `offset`, as nobody can who asks a device: whether it is readable or not.
    pub(crate) fn read(&self, part: Part, offset: u64, buf: &mut [u8]) {
        let first = offset / BLOCK as u64;
        let end = (offset + buf.len() as u64).div_ceil(BLOCK as u64);
        buf.fill(0);
        for (&(_, index), block) in self.blocks.range((part, first)..(part, end)) {
            let start = index * BLOCK as u64;
            let (from, to) = (
                start.max(offset),
                (start + BLOCK as u64).min(offset + buf.len() as u64),
            );
            let source = &block.bytes[(from - start) as usize..(to - start) as usize];
            buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
    }

    /// Writes `bytes` at `offset`.
    pub(crate) fn write(&mut self, part: Part, offset: u64, mut bytes: &[u8]) {
        let written = self.sectors(part, offset, bytes.len());
        self.bad.retain(|sector| !written.contains(sector));
        let mut at = offset;
        while !bytes.is_empty() {
            let within = (at % BLOCK as u64) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - within));
            let block = self
                .blocks
                .entry((part, at / BLOCK as u64))
                .or_insert_with(|| {
                    Arc::new(Block {
                        bytes: [0; BLOCK],
                        hash: OnceLock::new(),
                    })
                });
            let block = Arc::make_mut(block);
            block.hash = OnceLock::new();
            block.bytes[within..within + now.len()].copy_from_slice(now);
            at += now.len() as u64;
            bytes = rest;
        }
    }

    /// What is on it after `log`.
    pub(crate) fn with(mut self, log: &[Operation]) -> Self {
        for operation in log {
            if let Operation::Write(part, offset, bytes) = operation {
                self.write(*part, *offset, bytes);
            }
        }
        self
    }

    /// A number that two different disks do not share, but by a chance of one in 2^64.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint_of(|_| true)
    }

    /// The same of some partitions.
    pub(crate) fn fingerprint_of(&self, wanted: impl Fn(Part) -> bool) -> u64 {
        let one = |(key, block): (&(Part, u64), &Arc<Block>)| {
            *block.hash.get_or_init(|| {
                // A block of zeros is the same as none.
                if block.bytes == [0; BLOCK] {
                    return 0;
                }
                let mut hasher = DefaultHasher::new();
                (key, block.bytes).hash(&mut hasher);
                hasher.finish()
            })
        };
        let blocks = self.blocks.iter().filter(|((part, _), _)| wanted(*part));
        blocks.map(one).fold(0, u64::wrapping_add)
    }
}

/// Something that was done to a disk.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Bytes were written at an offset of a partition.
    Write(Part, u64, Arc<[u8]>),
    /// Everything before is on the medium.
    Flush,
}

struct Live {
    contents: Contents,
    log: Vec<Operation>,
}

/// A disk that programs run on.
#[derive(Clone)]
pub(crate) struct Disk(Rc<RefCell<Live>>);

impl Disk {
    pub(crate) fn new(contents: Contents) -> Self {
        Self(Rc::new(RefCell::new(Live {
            contents,
            log: Vec::new(),
        })))
    }

    pub(crate) fn partition(&self, part: Part) -> Partition {
        self.region(part, 0, part.size())
    }

    /// The `size` bytes from `start` of the disk as a whole, where its table says that a partition lies.
    pub(crate) fn window(&self, start: u64, size: u64) -> Partition {
        self.region(Part::Whole, start, size)
    }

    fn region(&self, part: Part, start: u64, size: u64) -> Partition {
        let sector = self.0.borrow().contents.sector;
        Partition {
            disk: self.clone(),
            part,
            start,
            size,
            sector,
        }
    }

    /// The newest record on it.
    pub(crate) fn record(&self) -> Option<Record> {
        BootState::new(self.partition(Part::State)).load().record
    }

    /// What programs read from it now.
    pub(crate) fn contents(&self) -> Contents {
        self.0.borrow().contents.clone()
    }

    /// What was done since this was last asked.
    pub(crate) fn take_log(&self) -> Vec<Operation> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    /// Whether everything that was written has been flushed.
    pub(crate) fn is_flushed(&self) -> bool {
        !matches!(self.0.borrow().log.last(), Some(Operation::Write(..)))
    }
}

/// A partition of a [`Disk`].
#[derive(Clone)]
pub(crate) struct Partition {
    disk: Disk,
    part: Part,
    start: u64,
    size: u64,
    sector: u32,
}

/// A sector that cannot be read.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a sector cannot be read")]
pub(crate) struct Unreadable;

impl Device for Partition {
    type Error = Unreadable;

    fn block_size(&self) -> u32 {
        self.sector
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Unreadable> {
        self.aligned(offset, buf.len());
        let at = self.start + offset;
        let live = self.disk.0.borrow();
        if !live.contents.is_readable(self.part, at, buf.len()) {
            return Err(Unreadable);
        }
        live.contents.read(self.part, at, buf);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Unreadable> {
        self.aligned(offset, buf.len());
        let mut live = self.disk.0.borrow_mut();
        let at = self.start + offset;
        live.contents.write(self.part, at, buf);
        live.log.push(Operation::Write(self.part, at, buf.into()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Unreadable> {
        self.disk.0.borrow_mut().log.push(Operation::Flush);
        Ok(())
    }
}

impl Partition {
    fn aligned(&self, offset: u64, length: usize) {
        let sector = u64::from(self.sector);
        assert!(
            offset.is_multiple_of(sector) && (length as u64).is_multiple_of(sector),
            "{:?}: {length} bytes at {offset} are not whole sectors",
            self.part
        );
        assert!(
            offset + length as u64 <= self.size,
            "{:?}: {length} bytes at {offset} are past the end",
            self.part
        );
    }
}

/// All of a disk as a file, for another implementation to read and write.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) contents: Contents,
    size: u64,
    at: u64,
}

impl File {
    /// A disk of `size` bytes.
    pub(crate) fn new(contents: Contents, size: u64) -> Self {
        Self {
            contents,
            size,
            at: 0,
        }
    }

    fn within(&self, length: usize) -> usize {
        length.min(self.size.saturating_sub(self.at) as usize)
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = self.within(buf.len());
        self.contents.read(Part::Whole, self.at, &mut buf[..length]);
        self.at += length as u64;
        Ok(length)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = self.within(buf.len());
        self.contents.write(Part::Whole, self.at, &buf[..length]);
        self.at += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
