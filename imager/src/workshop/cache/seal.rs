//! Seals: what an entry consisted of when it was finished.
//!
//! ```text
//! sternpost seal 1
//! directory SECONDS.NANOSECONDS PATH   its time, which changes with every name that is added or removed
//! file SIZE NAME                       a file at the top
//! sha256 DIGEST NAME                   the same file's content
//! end
//! ```
//!
//! Seals of before have no digests, and count for what they say. A directory's files are not read: a tools tree has a hundred thousand, and is only ever used by tools.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::hash_file;

/// First line of a seal.
const SEAL: &str = "sternpost seal 1";

pub(super) fn make(root: &Path) -> Result<String> {
    let mut seal = format!("{SEAL}\n");
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let directory = root.join(&relative);
        for entry in fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            let meta = entry.path().symlink_metadata()?;
            let path = relative.join(entry.file_name());
            if meta.is_dir() {
                pending.push(path);
            } else if relative.as_os_str().is_empty() && meta.is_file() {
                let digest = hash_file(&entry.path())?;
                writeln!(seal, "file {} {}", meta.len(), path.display())?;
                writeln!(seal, "sha256 {digest} {}", path.display())?;
            }
        }
        let meta = directory.metadata()?;
        // The top directory's own time survives the rename that commits it.
        writeln!(
            seal,
            "directory {}.{:09} {}",
            meta.mtime(),
            meta.mtime_nsec(),
            relative.display()
        )?;
    }
    seal.push_str("end\n");
    Ok(seal)
}

/// Whether what is in `root` is what the seal says.
pub(super) fn agrees(seal: &str, root: &Path) -> bool {
    let mut lines = seal.lines();
    if lines.next() != Some(SEAL) || !seal.ends_with("\nend\n") {
        return false;
    }
    lines.filter(|line| *line != "end").all(|line| {
        let mut words = line.splitn(3, ' ');
        let (Some(kind), Some(expected), Some(path)) = (words.next(), words.next(), words.next())
        else {
            return false;
        };
        let path = root.join(path);
        let Ok(meta) = path.symlink_metadata() else {
            return false;
        };
        match kind {
            "file" => meta.is_file() && meta.len().to_string() == expected,
            "sha256" => hash_file(&path).is_ok_and(|found| found == expected),
            "directory" => {
                meta.is_dir() && format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()) == expected
            }
            _ => false,
        }
    })
}
