//! Small files: read as JSON, and written so that whoever reads sees the old content or the new, and nothing between.
//!
//! All that `bootctl` writes whole goes through here (a test holds that much). What is kept on `state` is written by
//! [`write_durable`] or [`write_line`], after which no power cut takes it back; what lasts until the next boot (`/run`,
//! `/etc` on the overlay) by [`write_atomic`]. The files themselves: docs/formats/state.md.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::failure::{Doing, Failure, Result};

/// Reads a JSON file, a small one.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = small_file::read(path).doing(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::of(e).doing(format!("reading {}", path.display())))
}

/// Puts `bytes` at `path`, on the disk when this returns.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    write(path, bytes, mode, true)
}

/// Puts `bytes` at `path`; a power cut may take them back, or leave an empty file.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    write(path, bytes, mode, false)
}

fn write(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    // The umask must not decide.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| if durable { file.sync_all() } else { Ok(()) })
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
    if durable {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Longest line of [`write_line`]. Far less than a sector, which a disk writes whole or not at all.
const LINE: usize = 48;

/// Puts a short line at `path`, over the one that is there: that works on a filesystem without a byte or an inode left,
/// which `state` may be whenever Kubernetes likes. Only the first time room is needed. Readers trim.
pub fn write_line(path: &Path, line: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
    let padded = format!("{line:LINE$}\n");
    // A pipe in its place would wait for a reader.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let there = fs::OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    match there {
        // An empty file has no block to write over.
        Ok(file)
            if padded.len() == LINE + 1
                && file.metadata().is_ok_and(|it| it.is_file() && it.len() > 0) =>
        {
            file.write_all_at(padded.as_bytes(), 0)?;
            file.sync_all()
        }
        _ => write_durable(path, padded.as_bytes(), 0o644),
    }
}
