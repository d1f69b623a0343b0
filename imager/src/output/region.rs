//! A partition inside a disk image, as boot-core's device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use boot_core::Device;

use crate::output::gpt::Partition;

/// A run of bytes of a file. Clones share the file.
#[derive(Clone, Debug)]
pub struct Region {
    file: Arc<File>,
    start: u64,
    size: u64,
    block_size: u32,
}

impl Region {
    /// The extent of a partition.
    #[must_use]
    pub fn of(file: &Arc<File>, partition: &Partition, block_size: u32) -> Self {
        Self {
            file: Arc::clone(file),
            start: partition.start,
            size: partition.size,
            block_size,
        }
    }

    /// Fills `buf` from `offset`, which needs no alignment.
    ///
    /// # Errors
    /// The run does not lie within the partition, or reading fails.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, self.place(offset, buf.len())?)
    }

    /// Writes `buf` at `offset`, leaving runs of zeros as the holes they are in a new file.
    ///
    /// # Errors
    /// The run does not lie within the partition, or writing fails.
    pub fn write_sparse(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        const PIECE: usize = 65536;
        self.place(offset, buf.len())?;
        for (n, piece) in buf.chunks(PIECE).enumerate() {
            if piece.iter().any(|byte| *byte != 0) {
                let at = offset + (n * PIECE) as u64;
                self.file.write_all_at(piece, self.start + at)?;
            }
        }
        Ok(())
    }

    /// Copies a whole file to the partition's start; it must fit.
    pub fn copy_file(&self, from: &File) -> io::Result<u64> {
        let length = from.metadata()?.len();
        self.place(0, usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < length {
            let piece = buffer
                .len()
                .min(usize::try_from(length - at).unwrap_or(usize::MAX));
            from.read_exact_at(&mut buffer[..piece], at)?;
            self.write_sparse(at, &buffer[..piece])?;
            at += piece as u64;
        }
        Ok(length)
    }

    fn place(&self, offset: u64, len: usize) -> io::Result<u64> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at {offset} do not fit in a partition of {} bytes",
                    self.size
                ),
            ));
        }
        Ok(self.start + offset)
    }
}

impl Device for Region {
    type Error = io::Error;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, self.place(offset, buf.len())?)
    }

    /// An image in the making is synced once, at its end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::gpt::derived_guid;

    fn region(size: u64) -> Region {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(size + 8192).unwrap();
        let partition = Partition {
            label: "x".into(),
            kind: derived_guid(&["t"]),
            guid: derived_guid(&["x"]),
            start: 4096,
            size,
        };
        Region::of(&file, &partition, 512)
    }

    #[test]
    fn what_is_outside_is_out_of_reach() {
        let mut region = region(4096);
        assert!(region.write_at(4096 - 512, &[1; 512]).is_ok());
        assert!(region.write_at(4096 - 512, &[1; 1024]).is_err());
        assert!(region.read(u64::MAX, &mut [0; 1]).is_err());
        let mut byte = [0];
        region.read(4095, &mut byte).unwrap();
        assert_eq!(byte, [1]);
    }

    #[test]
    fn a_file_is_copied_whole_or_refused() {
        let region = region(200_000);
        let from = tempfile::tempfile().unwrap();
        from.set_len(150_000).unwrap();
        from.write_all_at(b"end", 149_997).unwrap();
        assert_eq!(region.copy_file(&from).unwrap(), 150_000);
        let mut end = [0; 3];
        region.read(149_997, &mut end).unwrap();
        assert_eq!(&end, b"end");
        from.set_len(200_001).unwrap();
        assert!(region.copy_file(&from).is_err());
    }
}
