//! Where files lie, below a prefix: `/` in the field, a directory that stands in for a machine in tests.

use std::path::{Path, PathBuf};

/// Paths that everything here uses, below a prefix.
#[derive(Debug, Clone)]
pub struct Paths {
    prefix: PathBuf,
}

impl Paths {
    /// Below `prefix`.
    pub fn new(prefix: &Path) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Whether they are a machine's own. What stands in for a machine runs no commands: they would
    /// change the one that it stands on.
    pub fn are_real(&self) -> bool {
        self.prefix == Path::new("/")
    }

    /// `path`, which is absolute, below the prefix.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.prefix.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file of ours that lasts until the next boot.
    pub fn run(&self, name: &str) -> PathBuf {
        self.at("/run/sternpost").join(name)
    }

    /// A file of ours that outlives upgrades.
    pub fn state(&self, name: &str) -> PathBuf {
        self.at("/state/sternpost").join(name)
    }

    /// A file of the image's.
    pub fn image(&self, name: &str) -> PathBuf {
        self.at("/usr/lib/sternpost").join(name)
    }

    /// The lock of the boot state.
    pub fn lock(&self) -> PathBuf {
        self.run("bootctl.lock")
    }

    pub fn install_lock(&self) -> PathBuf {
        self.run("install.lock")
    }
}
