//! A disk or a partition (or a file standing in for one in tests) as a [`boot_core::Device`], for the agent and for
//! `bootctl`.
//!
//! Opened with `O_DIRECT`. What is read back after a flush came from the device and not from the page cache; and what is
//! written is what was asked for: the page cache reads and writes blocks of 4096 bytes, so that a sector of 512 bytes
//! could not be written beside one that cannot be read, and its neighbours would be written with it. Where the file
//! system below a stand-in has no direct I/O, the cache is dropped after each flush instead.
//!
//! What is written as a whole, an image's place or an ESP, is opened so that nobody else holds it ([`Access::Alone`]): the
//! kernel refuses it while it is mounted or lies under a device-mapper device, so that no mistake about which slot runs
//! reaches the root that does.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, OFlags, fadvise};

/// Enough for `O_DIRECT` on every block size there is.
const ALIGN: usize = 4096;
/// The most that is moved in one call: bounds the aligned copy.
const STEP: usize = 1 << 20;

/// What a partition is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be written, beside others that do so under the same lock.
    Shared,
    /// To be written by nobody else, and not while it is in use.
    Alone,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::Read | Self::Shared => OFlags::empty(),
            Self::Alone => OFlags::EXCL,
        }
    }
}

/// An open partition.
#[derive(Debug)]
pub struct BlockFile {
    file: File,
    path: PathBuf,
    block_size: u32,
    size: u64,
    direct: bool,
    bounce: Vec<u8>,
}

impl BlockFile {
    /// Opens `path`.
    ///
    /// # Errors
    /// It is not there, or may not be opened so: `EBUSY` where it is asked for alone and in use.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(access != Access::Read)
                .custom_flags((flags | access.flags()).bits() as i32)
                .open(path)
        };
        let (mut file, direct) = match open(OFlags::DIRECT) {
            Ok(file) => (file, true),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                (open(OFlags::empty())?, false)
            }
            Err(e) => return Err(e),
        };
        let block_size = if file.metadata()?.file_type().is_block_device() {
            rustix::fs::ioctl_blksszget(&file)?
        } else {
            512
        };
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            block_size,
            size,
            direct,
            bounce: Vec::new(),
        })
    }

    /// As it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `io` with the file and an aligned buffer of `len` bytes.
    fn aligned<R>(&mut self, len: usize, io: impl FnOnce(&File, &mut [u8]) -> R) -> R {
        if self.bounce.is_empty() {
            self.bounce = vec![0; STEP + ALIGN];
        }
        let start = self.bounce.as_ptr().align_offset(ALIGN);
        io(&self.file, &mut self.bounce[start..start + len])
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let block = u64::from(self.block_size);
        if !offset.is_multiple_of(block) || !(len as u64).is_multiple_of(block) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("offset {offset} or length {len} is not a multiple of {block}"),
            ));
        }
        if offset
            .checked_add(len as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{len} bytes at {offset} lie beyond the end at {}",
                    self.size
                ),
            ));
        }
        Ok(())
    }

    fn named(&self, what: &str, offset: u64, error: &io::Error) -> io::Error {
        io::Error::new(
            error.kind(),
            format!("{what} {} at {offset}: {error}", self.path.display()),
        )
    }
}

impl AsFd for BlockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl boot_core::Device for BlockFile {
    type Error = io::Error;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len())
            .map_err(|e| self.named("reading", offset, &e))?;
        let mut at = offset;
        for part in buf.chunks_mut(STEP) {
            self.aligned(part.len(), |file, bounce| {
                file.read_exact_at(bounce, at)?;
                part.copy_from_slice(bounce);
                Ok(())
            })
            .map_err(|e: io::Error| self.named("reading", at, &e))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check(offset, buf.len())
            .map_err(|e| self.named("writing", offset, &e))?;
        let mut at = offset;
        for part in buf.chunks(STEP) {
            self.aligned(part.len(), |file, bounce| {
                bounce.copy_from_slice(part);
                file.write_all_at(bounce, at)
            })
            .map_err(|e| self.named("writing", at, &e))?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file
            .sync_all()
            .map_err(|e| self.named("flushing", 0, &e))?;
        if !self.direct {
            let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_core::Device;

    #[test]
    fn reads_back_what_was_written_and_refuses_what_is_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        std::fs::write(&path, vec![0; 3 << 20]).unwrap();
        let mut device = BlockFile::open(&path, Access::Alone).unwrap();
        let data: Vec<u8> = (0..(2 << 20) + 512).map(|i| (i % 251) as u8).collect();
        device.write_at(4096, &data).unwrap();
        device.flush().unwrap();
        let mut back = vec![0; data.len()];
        device.read_at(4096, &mut back).unwrap();
        assert_eq!(back, data);
        assert!(device.read_at(3 << 20, &mut [0; 512]).is_err());
        assert!(device.read_at(100, &mut [0; 512]).is_err());
        let missing = BlockFile::open(&dir.path().join("none"), Access::Read).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    /// A block device that is in use needs one: what the flags are is what can be looked at everywhere.
    #[test]
    fn only_what_is_written_as_a_whole_is_asked_for_alone() {
        let exclusive = |access: Access| access.flags().contains(OFlags::EXCL);
        let all = [Access::Read, Access::Shared, Access::Alone];
        assert_eq!(all.map(exclusive), [false, false, true]);
    }
}
