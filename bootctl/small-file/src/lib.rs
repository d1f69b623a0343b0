//! Reads small files, of which nothing is known beforehand.
//!
//! `state` is the only filesystem of a machine that is written to, by Kubernetes, by its workloads and by whoever repairs
//! the machine. What stands under the name of a small file there may be a pipe nobody writes into, a device, or of any
//! size; the initrd agent and `bootctl` read it in every slot and in recovery, and neither may wait for it nor be killed
//! for its size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// The most that is read: far above every file of ours, the largest of which is a profile.
pub const MAX: u64 = 1 << 20;

/// The bytes of a regular file of at most [`MAX`] bytes. A symbolic link is followed.
///
/// # Errors
/// As those of the standard library; or it is no regular file, or a larger one.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // With O_PATH nothing of a device is opened, which may have effects of its own.
    let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if kind != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::other(format!("it has more than {MAX} bytes")));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As [`read`]; or it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_so_is_one_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&path, "edge-1\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_to_string(&path).unwrap(), "edge-1\n");
        assert_eq!(read(&link).unwrap(), b"edge-1\n");
        let missing = read(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn files_that_only_the_kernel_has_are_read_too() {
        assert!(read_to_string(Path::new("/proc/self/status")).is_ok());
    }

    #[test]
    fn nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
            let error = read(path).unwrap_err().to_string();
            assert_eq!(error, "it is no regular file", "{}", path.display());
        }
    }

    #[test]
    fn a_file_of_any_size_costs_no_more_than_a_small_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        let file = File::create(&path).unwrap();
        file.set_len(MAX).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, MAX);
        file.set_len(1 << 40).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert_eq!(error, "it has more than 1048576 bytes");
    }
}
