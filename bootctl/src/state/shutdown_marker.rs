//! The marker by which a start knows that the run before it did not end in a clean shutdown.
//!
//! A marker on `state` says that the machine is running. If it still does at the next start, the last run ended by power
//! cut, panic or watchdog. What follows is decided by `take_last_run` in `service::step`: the event `unclean-shutdown`,
//! and the root of the booted slot is read in whole, past dm-verity (which would restart the machine) and past the page
//! cache. Until that has ended the gate calls nothing healthy. The marker is never removed, only written over: a full
//! `state` must not keep an unclean end from being seen.
//!
//! The service leaves it. It says that the run has ended only when everything else has been stopped and `state` is about
//! to be unmounted (sternpost-ended.service): a way down that hangs, and is cut short, was none.

use std::path::Path;

use crate::os::files::write_line;

/// What the marker says when the run has ended.
const ENDED: &str = "ended";

/// What the marker says about the run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastRun {
    /// It ended in an orderly way, or there was none.
    Clean,
    /// It did not.
    Unclean,
    /// It is this one: the service was started again.
    This,
}

/// Reads the marker at `path`.
pub fn last_run(path: &Path, boot_id: &str) -> LastRun {
    match small_file::read_to_string(path) {
        Ok(text) if text.trim() == boot_id => LastRun::This,
        Ok(text) if text.trim() == ENDED => LastRun::Clean,
        Ok(_) => LastRun::Unclean,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => LastRun::Clean,
        Err(_) => LastRun::Unclean,
    }
}

/// Leaves the marker.
pub fn mark(path: &Path, boot_id: &str) -> std::io::Result<()> {
    write_line(path, boot_id)
}

/// The run `boot_id` has ended in an orderly way. What another one left stays: recovery may have run since.
pub fn unmark(path: &Path, boot_id: &str) -> std::io::Result<()> {
    match last_run(path, boot_id) {
        LastRun::This => write_line(path, ENDED),
        LastRun::Clean | LastRun::Unclean => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_tells_the_runs_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sternpost/running");
        assert_eq!(last_run(&path, "one"), LastRun::Clean);
        mark(&path, "one").unwrap();
        assert_eq!(last_run(&path, "one"), LastRun::This);
        assert_eq!(last_run(&path, "two"), LastRun::Unclean);
        unmark(&path, "two").unwrap();
        assert_eq!(last_run(&path, "two"), LastRun::Unclean);
        unmark(&path, "one").unwrap();
        unmark(&path, "one").unwrap();
        assert_eq!(last_run(&path, "two"), LastRun::Clean);
    }

    #[test]
    fn once_there_the_marker_needs_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running");
        let boot = "6fb5f2a5-35a9-4b13-9a3e-5c8f86f8c4a1";
        mark(&path, boot).unwrap();
        // From here on no file can be made beside it.
        std::fs::create_dir_all(dir.path().join(".running.new/taken")).unwrap();
        unmark(&path, boot).unwrap();
        assert_eq!(last_run(&path, boot), LastRun::Clean);
        mark(&path, boot).unwrap();
        assert_eq!(last_run(&path, boot), LastRun::This);
        assert_eq!(last_run(&path, "another"), LastRun::Unclean);
    }
}
