//! After an end that was not a clean shutdown: is the root still what was signed?
//!
//! A marker on `state` says that the machine is running. If it is still there at the next start, the
//! last run ended by power cut, panic or watchdog, and the root of the booted slot is read in whole,
//! past dm-verity (which would restart the machine) and past the page cache.

use std::path::Path;

use crate::machine::write_whole;

/// What the marker says about the run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastRun {
    /// It ended in an orderly way, or there was none.
    Clean,
    /// It did not.
    Unclean,
    /// It is this one: the service was started again.
    This,
}

/// Reads the marker at `path`.
pub(crate) fn last_run(path: &Path, boot_id: &str) -> LastRun {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim() == boot_id => LastRun::This,
        Ok(_) => LastRun::Unclean,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => LastRun::Clean,
        Err(_) => LastRun::Unclean,
    }
}

/// Leaves the marker.
pub(crate) fn mark(path: &Path, boot_id: &str) -> std::io::Result<()> {
    write_whole(path, format!("{boot_id}\n").as_bytes(), 0o644, true)
}

/// Takes the marker away: the machine goes down in an orderly way.
pub(crate) fn unmark(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
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
        unmark(&path).unwrap();
        unmark(&path).unwrap();
        assert_eq!(last_run(&path, "two"), LastRun::Clean);
    }
}
