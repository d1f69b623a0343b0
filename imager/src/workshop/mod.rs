//! Where images are made: the cache, the tools tree, and the steps that a build is made of.
//!
//! A step has a key (the hash of its inputs) and makes a directory. [`Workshop::step`] takes that
//! from the cache or has it made; steps that need nothing of each other are simply awaited side by
//! side. [`Progress`] shows each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::OnceCell;

use crate::sources::address::Credentials;
use crate::workshop::cache::{Cache, Key};
use crate::workshop::tools::Tools;

pub mod cache;
pub mod durable;
mod namespaces;
mod patience;
pub mod progress;
pub mod sandbox;
pub mod tool;
pub mod tools;

pub use progress::{Progress, Step};

/// Below this much room, an error is most likely the lack of it.
const ALMOST_FULL: u64 = 16 << 20;

/// What every step needs: the cache, the tools tree, somewhere to show progress. Cheap to clone.
#[derive(Clone)]
pub struct Workshop {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Cache,
    progress: Progress,
    tools: OnceCell<Tools>,
    credentials: Credentials,
}

impl Workshop {
    /// Opens the cache; makes nothing yet.
    pub fn open(cache: Option<&Path>, progress: Progress) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                cache: Cache::open(cache)?,
                progress,
                tools: OnceCell::new(),
                credentials: Credentials::default(),
            }),
        })
    }

    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    pub fn progress(&self) -> &Progress {
        &self.inner.progress
    }

    /// What mirrors were given to know who asks.
    pub fn credentials(&self) -> &Credentials {
        &self.inner.credentials
    }

    /// The tools tree, made at the first call (1–2 minutes with a cold cache).
    pub async fn tools(&self) -> Result<&Tools> {
        self.inner
            .tools
            .get_or_try_init(|| Tools::make(self))
            .await
            .context(
                "cannot make the tools tree, which holds every program that images are made with",
            )
    }

    /// Names the tools tree, for the keys of what its programs make. The tree is there already.
    pub fn tools_identity(&self) -> Result<String> {
        let tools = self
            .inner
            .tools
            .get()
            .context("the tools tree was not made yet")?;
        Ok(tools.identity().to_owned())
    }

    /// The finished directory of the step `key` from the cache, or else `make` fills an empty
    /// directory that then becomes it. `kind` is its folder in the cache, `what` is shown. Only
    /// one process makes the same key at a time.
    pub async fn step<F>(&self, kind: &str, what: &str, key: &Key, make: F) -> Result<PathBuf>
    where
        F: AsyncFnOnce(&Path, &Step) -> Result<()>,
    {
        // Both may take their time: one reads what is there, the other waits.
        let (found, lock) = {
            let (cache, kind, key) = (self.cache().clone(), kind.to_owned(), key.clone());
            tokio::task::spawn_blocking(move || {
                if let Some(path) = cache.find(&kind, &key) {
                    return Ok((Some(path), None));
                }
                let lock = cache.lock(&kind, &key)?;
                anyhow::Ok((cache.find(&kind, &key), Some(lock)))
            })
            .await??
        };
        if let Some(path) = found {
            return Ok(path);
        }
        let cache = self.cache();
        let step = self.progress().start(what);
        let scratch = cache.scratch()?;
        let made = make(scratch.path(), &step).await;
        let path = made
            .and_then(|()| cache.commit(kind, key, scratch))
            .map_err(|error| self.explain_space(error))
            .with_context(|| what.to_owned())?;
        drop(lock);
        step.done();
        Ok(path)
    }

    /// Adds the reason when the disk is full: what fails then says so in a hundred ways.
    pub fn explain_space(&self, error: anyhow::Error) -> anyhow::Error {
        let path = self.cache().path();
        match nix::sys::statvfs::statvfs(path) {
            Ok(stat) if stat.blocks_available().saturating_mul(stat.fragment_size()) < ALMOST_FULL => {
                error.context(format!(
                    "the disk that holds the cache {} is full: free some space, run `imager cache prune`, \
                     or choose another place with --cache",
                    path.display()
                ))
            }
            _ => error,
        }
    }
}
