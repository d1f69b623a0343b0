//! The two locks, files in /run/sternpost, each of which says who holds it.
//!
//! | lock | held for | taken by | how long is waited for it |
//! | --- | --- | --- | --- |
//! | of the boot state, `bootctl.lock` | one change, moments | `boot::Locked` (commands, the service), `Control::lock` (what installs, for each change) | [`PATIENCE`]; by the service for ever |
//! | of installations, `install.lock` | as long as they take | `boot::installing` (`install`, `repair-slot`, `give-up`, `update-recovery`, `update-loader` and its end in the service); `erase-state`; the service that writes down what it read of a slot that does not run | not at all: exit code 7; the service tries again later |
//!
//! Who needs both takes that of installations first. A slot that is being written is empty in the record, and nothing but
//! its installation fills it: so a verdict never waits for a download.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::failure::{Code, Doing, Failure, Result};

/// How long a change of the boot state is waited for: each is a few writes to the disk.
const PATIENCE: Duration = Duration::from_secs(15);

/// Held until dropped; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Whether somebody holds the lock at `path`. To ask keeps nobody else from asking.
    pub fn is_held(path: &Path) -> bool {
        File::open(path).is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// Takes the lock at `path` as soon as whoever holds it has let go; fails after some seconds.
    pub fn wait_for(path: &Path, what: &str) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Self::take(path, what) {
                Err(e) if e.code == Code::Locked && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                other => return other,
            }
        }
    }

    /// Takes the lock at `path`, or fails at once with who holds it.
    ///
    /// `what` is written into the file for whoever comes second. The file is never removed:
    /// two processes must never lock two different files.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).doing(|| format!("creating {}", dir.display()))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .doing(|| format!("opening the lock {}", path.display()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.lines().next().unwrap_or_default().trim().to_owned();
                let holder = if holder.is_empty() {
                    "another process".to_owned()
                } else {
                    holder
                };
                return Err(Failure::new(
                    Code::Locked,
                    format!("{holder} holds the lock {}", path.display()),
                )
                .next("wait until it has ended, or end it; nothing was changed"));
            }
            Err(e) => {
                return Err(Failure::of(std::io::Error::from(e))
                    .doing(format!("locking {}", path.display())));
            }
        }
        let line = format!("bootctl {what} (process {})\n", std::process::id());
        // For people. Where /run is full the lock holds all the same.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(line.as_bytes()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_refused_with_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/bootctl.lock");
        assert!(!Lock::is_held(&path));
        let first = Lock::take(&path, "install http://server/bundle.spb").unwrap();
        assert!(Lock::is_held(&path));
        let refused = Lock::take(&path, "rollback").unwrap_err();
        assert_eq!(refused.code, Code::Locked);
        assert!(
            refused
                .what
                .contains("bootctl install http://server/bundle.spb (process ")
        );
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || Lock::wait_for(&path, "rollback").is_ok()
        });
        drop(first);
        assert!(waiting.join().unwrap());
    }
}
