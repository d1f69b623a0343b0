//! A USB stick with a bundle on it: a FAT file system that holds one file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Larger than its file by this: what the file system itself needs.
const ROOM: u64 = 16 << 20;

/// Makes the image of a stick at `path`, with a copy of `file` named `name` on it.
///
/// # Errors
/// A file cannot be read or written.
pub fn make(path: &Path, file: &Path, name: &str) -> Result<()> {
    let what = || format!("cannot make the stick {}", path.display());
    let mut from = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let stick = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(what)?;
    stick
        .set_len(from.metadata()?.len() + ROOM)
        .with_context(what)?;
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32);
    fatfs::format_volume(&stick, options).with_context(what)?;
    let filesystem = fatfs::FileSystem::new(&stick, fatfs::FsOptions::new()).with_context(what)?;
    let mut to = filesystem.root_dir().create_file(name).with_context(what)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        to.write_all(bytes).with_context(what)?;
    }
    to.flush().with_context(what)
}
