//! A bundle in a file or on a block device.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use super::{Source, pipe::Pipe, too_short};
use crate::failure::{Failure, Result};

struct Seekable {
    name: String,
    file: File,
    size: u64,
}

/// Opens `path`; a FIFO is read front to back.
pub(super) fn open(path: &Path) -> Result<Box<dyn Source>> {
    let name = path.display().to_string();
    let cannot = |e: std::io::Error| {
        Failure::source(format!("{name} cannot be opened: {e}"))
            .next("check the path; a USB stick may have to be mounted first")
    };
    let mut file = File::open(path).map_err(cannot)?;
    let kind = file.metadata().map_err(cannot)?.file_type();
    if kind.is_dir() {
        return Err(Failure::source(format!("{name} is a directory"))
            .next("name the bundle, a .spb file, in it"));
    }
    if kind.is_fifo() || kind.is_char_device() || kind.is_socket() {
        return Ok(Box::new(Pipe::new(&name, file)));
    }
    let size = file.seek(SeekFrom::End(0)).map_err(cannot)?;
    Ok(Box::new(Seekable { name, file, size }))
}

impl Source for Seekable {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(too_short(&self.name, offset, buf.len(), self.size));
        }
        self.file.read_exact_at(buf, offset).map_err(|e| {
            Failure::source(format!("reading {} at {offset}: {e}", self.name)).next(
                "look whether the disk or stick is still there, then run the same command again",
            )
        })
    }

    fn ends_at(&mut self, offset: u64) -> Result<bool> {
        Ok(self.size == offset)
    }
}
