//! Steps: what a build is made of. Progress, caching by the hash of the inputs, running side by side.
use crate::cache::{Cache, Key};
use crate::tools::Tools;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// What every step needs: the cache, the tools tree, somewhere to show progress. Cheap to clone.
#[derive(Clone)]
pub struct Workshop {
    cache: Cache,
}

impl Workshop {
    /// Opens the cache; makes nothing yet.
    pub fn open(cache: Option<&Path>, progress: Progress) -> Result<Self> {
        let _ = progress;
        Ok(Self {
            cache: Cache::open(cache)?,
        })
    }
    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
    /// Shows progress.
    pub fn progress(&self) -> &Progress {
        &Progress
    }
    /// The tools tree, made at the first call (1–2 minutes with a cold cache).
    pub async fn tools(&self) -> Result<&Tools> {
        bail!("not built yet")
    }
    /// The finished directory of the step `key` from the cache, or else `make` fills an empty directory that then
    /// becomes it. `what` is shown. Only one process makes the same key at a time.
    pub async fn step<F>(&self, kind: &str, what: &str, key: &Key, make: F) -> Result<PathBuf>
    where
        F: AsyncFnOnce(&Path, &Step) -> Result<()>,
    {
        let _ = (kind, what, key, make);
        bail!("not built yet")
    }
}

/// Shows what a build does: bars on a terminal, plain lines elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Progress;

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        Self
    }
    /// Says nothing (tests, `--json`).
    pub fn hidden() -> Self {
        Self
    }
    /// Begins a step; dropping it without [`Step::done`] shows it as failed.
    pub fn start(&self, what: &str) -> Step {
        let _ = what;
        Step
    }
    /// A line of text above the bars.
    pub fn line(&self, text: &str) {
        let _ = text;
    }
}
impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// One step that is under way.
pub struct Step;
impl Step {
    /// How much there is to do, in bytes: turns the line into a bar.
    pub fn total(&self, bytes: u64) {
        let _ = bytes;
    }
    /// That much more is done.
    pub fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// What it is at.
    pub fn note(&self, text: &str) {
        let _ = text;
    }
    /// Finished: shows how long it took.
    pub fn done(self) {}
}
