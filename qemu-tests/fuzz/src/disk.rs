//! A disk in memory of any size, of which only what was written exists.

use std::collections::BTreeMap;

use boot_core::Device;

/// The unit in which it is kept; blocks are one or eight of them.
const SECTOR: usize = 512;

/// A disk, zero where nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparse {
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    /// Sectors that it does not read until they are written.
    pub bad: Vec<u64>,
    size: u64,
    block_size: u32,
}

/// What a disk says to a request that it does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it cannot be read, or is not whole blocks within the disk")
    }
}

impl Sparse {
    /// Of `size` bytes, with blocks of 512 or 4096.
    pub fn new(size: u64, block_size: u32) -> Self {
        Self {
            sectors: BTreeMap::new(),
            bad: Vec::new(),
            size,
            block_size,
        }
    }

    /// Puts `bytes` at a multiple of 512, as somebody does who does not ask.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (at, part) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
            let sector = self.sectors.entry(at).or_insert([0; SECTOR]);
            sector[..part.len()].copy_from_slice(part);
        }
    }

    /// Where two disks differ, in sectors.
    pub fn differs(&self, other: &Self) -> Vec<u64> {
        let sector = |disk: &Self, at| disk.sectors.get(&at).copied().unwrap_or([0; SECTOR]);
        let mut all: Vec<_> = self.sectors.keys().chain(other.sectors.keys()).collect();
        all.sort_unstable();
        all.dedup();
        let differ = |at: &&u64| sector(self, **at) != sector(other, **at);
        all.into_iter().filter(differ).copied().collect()
    }

    fn refuse(&self, offset: u64, length: usize) -> Result<(), Refused> {
        let block = u64::from(self.block_size);
        let within = offset
            .checked_add(length as u64)
            .is_some_and(|end| end <= self.size);
        if within && offset.is_multiple_of(block) && (length as u64).is_multiple_of(block) {
            Ok(())
        } else {
            Err(Refused)
        }
    }
}

impl Device for Sparse {
    type Error = Refused;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refused> {
        self.refuse(offset, buf.len())?;
        buf.fill(0);
        let first = offset / SECTOR as u64;
        let there = first..first + (buf.len() / SECTOR) as u64;
        if self.bad.iter().any(|bad| there.contains(bad)) {
            return Err(Refused);
        }
        for (at, sector) in self.sectors.range(there) {
            buf[(at - first) as usize * SECTOR..][..SECTOR].copy_from_slice(sector);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), Refused> {
        self.refuse(offset, buf.len())?;
        let (first, end) = (offset, offset + buf.len() as u64);
        let written = first / SECTOR as u64..end / SECTOR as u64;
        self.bad.retain(|bad| !written.contains(bad));
        self.put(offset, buf);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refused> {
        Ok(())
    }
}
