//! Steps: what a build is made of.
//!
//! A step has a key (the hash of its inputs) and makes a directory. [`Workshop::step`] takes that
//! from the cache or has it made; steps that need nothing of each other are simply awaited side by
//! side. [`Progress`] shows each: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::OnceCell;

use crate::cache::{Cache, Key};
use crate::tools::Tools;

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
}

impl Workshop {
    /// Opens the cache; makes nothing yet.
    pub fn open(cache: Option<&Path>, progress: Progress) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                cache: Cache::open(cache)?,
                progress,
                tools: OnceCell::new(),
            }),
        })
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Shows progress.
    pub fn progress(&self) -> &Progress {
        &self.inner.progress
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
        let cache = self.cache();
        if let Some(path) = cache.find(kind, key) {
            return Ok(path);
        }
        let lock = {
            let (cache, kind, key) = (cache.clone(), kind.to_owned(), key.clone());
            tokio::task::spawn_blocking(move || cache.lock(&kind, &key)).await??
        };
        if let Some(path) = cache.find(kind, key) {
            return Ok(path);
        }
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

/// Shows what a build does: bars on a terminal, plain lines elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    output: Output,
}

#[derive(Clone, Debug)]
enum Output {
    Terminal(MultiProgress),
    Lines,
    Hidden,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let output = if std::io::stderr().is_terminal() {
            Output::Terminal(MultiProgress::new())
        } else {
            Output::Lines
        };
        Self { output }
    }

    /// Says nothing (tests).
    pub fn hidden() -> Self {
        Self {
            output: Output::Hidden,
        }
    }

    /// Begins a step; dropping it without [`Step::done`] takes it off the screen.
    pub fn start(&self, what: &str) -> Step {
        let bar = match &self.output {
            Output::Terminal(all) => {
                let bar = all.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix} {wide_msg} {elapsed}"));
                bar.set_prefix(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Output::Lines => {
                eprintln!("  … {what}");
                None
            }
            Output::Hidden => None,
        };
        Step {
            progress: self.clone(),
            what: what.to_owned(),
            started: Instant::now(),
            bar,
        }
    }

    /// A line of text above the bars.
    pub fn line(&self, text: &str) {
        match &self.output {
            Output::Terminal(all) => {
                // A terminal that cannot be written to has nobody who would miss the line.
                let _ = all.println(text);
            }
            Output::Lines => eprintln!("{text}"),
            Output::Hidden => {}
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// One step that is under way.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// How much there is to do, in bytes: turns the line into a bar.
    pub fn total(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.set_style(style(
                "{spinner} {prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            ));
        }
    }

    /// That much more is done.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// What it is at.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Finished: shows how long it took.
    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        self.progress
            .line(&format!("  ✓ {} ({seconds:.1} s)", self.what));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
