//! The verity leaves of the image that is being installed.
//!
//! In memory while they are few; those of a root beyond 1.5 GiB go into a nameless file, so that
//! memory stays bounded whatever the bundle's size. But where `state` has no room for that file, an
//! upgrade is worth the memory: a 128th of the root.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use boot_core::verity::HASH;

use crate::failure::{Doing, Result};

/// As much as is kept in memory.
const IN_MEMORY: u64 = 12 << 20;

/// The leaves, in order.
pub(super) struct Leaves {
    memory: Vec<u8>,
    file: Option<File>,
}

impl Leaves {
    /// Room for `length` bytes of leaves; a file for them goes into `directory` if need be.
    pub(super) fn new(length: u64, directory: &Path) -> Self {
        let file = (length > IN_MEMORY)
            .then(|| nameless(directory, length))
            .and_then(|made| match made {
                Ok(file) => Some(file),
                Err(e) => {
                    eprintln!(
                        "bootctl: no room for the verity leaves in {} ({e}); keeping them in memory",
                        directory.display()
                    );
                    None
                }
            });
        Self {
            memory: Vec::new(),
            file,
        }
    }

    /// Appends some.
    pub(super) fn push(&mut self, leaves: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) => file
                .write_all(leaves)
                .doing(|| "keeping the verity leaves on the state filesystem"),
            None => {
                self.memory.extend_from_slice(leaves);
                Ok(())
            }
        }
    }

    /// The leaves of `count` blocks from block `first` on.
    pub(super) fn get(&self, first: u64, count: usize) -> Result<Vec<u8>> {
        let mut out = vec![0; count * HASH];
        let at = first * HASH as u64;
        match &self.file {
            Some(file) => file
                .read_exact_at(&mut out, at)
                .doing(|| "reading the verity leaves from the state filesystem")?,
            None => {
                let end = at as usize + out.len();
                out.copy_from_slice(&self.memory[at as usize..end]);
            }
        }
        Ok(out)
    }
}

/// A file of `length` bytes without a name, all of whose blocks are taken already.
fn nameless(directory: &Path, length: u64) -> std::io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!(".leaves.{}", std::process::id()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_file_give_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for length in [64, IN_MEMORY + 32] {
            let mut leaves = Leaves::new(length, dir.path());
            assert_eq!(leaves.file.is_some(), length > IN_MEMORY);
            let bytes: Vec<u8> = (0..160).collect();
            leaves.push(&bytes).unwrap();
            assert_eq!(leaves.get(1, 2).unwrap(), bytes[32..96]);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn where_there_is_no_room_for_a_file_memory_serves() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        std::fs::write(&taken, "").unwrap();
        for (length, directory) in [(IN_MEMORY + 32, taken.as_path()), (1 << 60, dir.path())] {
            let mut leaves = Leaves::new(length, directory);
            assert!(leaves.file.is_none());
            leaves.push(&[7; 64]).unwrap();
            assert_eq!(leaves.get(1, 1).unwrap(), [7; 32]);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
