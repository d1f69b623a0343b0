//! A disk image as boot-core's device; its partitions are windows of it.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Result, ensure};
use boot_core::Device;
use boot_core::window::Window;

/// Clones share the file.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<File>,
    size: u64,
    block_size: u32,
}

/// A partition of an image.
pub type Region = Window<Image>;

impl Image {
    /// A file, or a block device.
    pub fn new(file: File, block_size: u32) -> io::Result<Self> {
        // Metadata has no size for a device.
        let size = (&file).seek(SeekFrom::End(0))?;
        Ok(Self {
            size,
            file: Arc::new(file),
            block_size,
        })
    }

    /// The same, in sectors of another size.
    #[must_use]
    pub fn in_sectors(self, block_size: u32) -> Self {
        Self { block_size, ..self }
    }
}

/// It needs no alignment.
impl Device for Image {
    type Error = io::Error;

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    /// An image in the making is synced once, at its end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `buf` at `offset`, leaving runs of zeros as the holes they are in a new file.
pub fn write_sparse(region: &mut Region, offset: u64, buf: &[u8]) -> Result<()> {
    const PIECE: usize = 65536;
    ensure_fits(region, offset, buf.len() as u64)?;
    for (n, piece) in buf.chunks(PIECE).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            region.write_at(offset + (n * PIECE) as u64, piece)?;
        }
    }
    Ok(())
}

/// Copies a whole file to the partition's start; gives its length.
pub fn copy_file(region: &mut Region, from: &File) -> Result<u64> {
    let length = from.metadata()?.len();
    ensure_fits(region, 0, length)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let piece = buffer
            .len()
            .min(usize::try_from(length - at).unwrap_or(usize::MAX));
        from.read_exact_at(&mut buffer[..piece], at)?;
        write_sparse(region, at, &buffer[..piece])?;
        at += piece as u64;
    }
    Ok(length)
}

/// Zeros are not written, so that the window alone would not notice them beyond its end.
fn ensure_fits(region: &Region, offset: u64, length: u64) -> Result<()> {
    let size = region.size();
    ensure!(
        offset.checked_add(length).is_some_and(|end| end <= size),
        "{length} bytes at {offset} do not fit in a partition of {size} bytes"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(size: u64) -> Region {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size + 8192).unwrap();
        Region::new(Image::new(file, 512).unwrap(), 4096, size)
    }

    #[test]
    fn zeros_beyond_the_end_are_refused_too() {
        let mut region = region(4096);
        assert!(write_sparse(&mut region, 4096 - 512, &[0; 512]).is_ok());
        assert!(write_sparse(&mut region, 4096 - 512, &[0; 1024]).is_err());
        assert!(write_sparse(&mut region, u64::MAX, &[0; 1]).is_err());
    }

    #[test]
    fn a_file_is_copied_whole_or_refused() {
        let mut region = region(200_000);
        let from = tempfile::tempfile().unwrap();
        from.set_len(150_000).unwrap();
        from.write_all_at(b"end", 149_997).unwrap();
        assert_eq!(copy_file(&mut region, &from).unwrap(), 150_000);
        let mut end = [0; 3];
        region.read_at(149_997, &mut end).unwrap();
        assert_eq!(&end, b"end");
        from.set_len(200_001).unwrap();
        assert!(copy_file(&mut region, &from).is_err());
    }
}
