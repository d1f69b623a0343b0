//! Files that are whole or not there, also after the power failed: written beside, synced, renamed.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use tempfile::NamedTempFile;

/// A new file in `directory`, on the way to a name in the same filesystem.
pub fn create(directory: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".new-")
        // As any file that is made: what of it stays is the umask's.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
}

/// Gives a file its name once its content is on the disk. Whether the name is there after a power cut is
/// the directory's matter, see [`sync_directory`].
pub fn rename(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// [`rename`] that lasts.
pub fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    rename(file, path)?;
    sync_directory(parent(path))
}

/// Makes, or replaces, a file.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(parent(path))?;
    file.write_all(bytes)?;
    persist(file, path)
}

/// Puts a directory's names on the disk, as far as its filesystem can be asked for that: some (of FUSE, or
/// from another host) have no fsync of directories.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        Err(error) if has_none(&error) => Ok(()),
        done => done,
    }
}

fn has_none(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOTSUP | Errno::ENOSYS))
}

/// The directory that a file is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"one").unwrap();
        let mut half = create(directory.path()).unwrap();
        half.write_all(b"tw").unwrap();
        drop(half);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
    }

    #[test]
    fn a_filesystem_without_fsync_of_directories_is_no_error() {
        let of = |errno: Errno| has_none(&io::Error::from(errno));
        assert!(of(Errno::EINVAL) && of(Errno::EOPNOTSUPP));
        assert!(!of(Errno::EIO) && !of(Errno::ENOSPC));
        // procfs is one.
        sync_directory(Path::new("/proc")).unwrap();
    }
}
