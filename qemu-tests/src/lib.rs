//! Boots the real artefacts in emulated machines and breaks them on purpose.
//!
//! A [`scenario::Scenario`] gets a [`scenario::Context`]: images from [`artefacts`], throwaway copies of them
//! ([`disk`]), machines ([`machine`]) that run through `imager run`, their [`console`], commands inside ([`ssh`]), and
//! an HTTP [`server`]. Every wait has a limit, and what fails leaves its console log.

pub mod artefacts;
pub mod console;
pub mod disk;
pub mod loaders;
pub mod machine;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod slots;
pub mod ssh;
pub mod steps;
pub mod stick;
pub mod story;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The cache that all checkouts share: `STERNPOST_CACHE`, else `$XDG_CACHE_HOME/sternpost`.
#[must_use]
pub fn cache_directory() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("STERNPOST_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("sternpost")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/sternpost")))
        .unwrap_or_else(|| std::env::temp_dir().join("sternpost"))
}

/// The `imager` program: the one that was named, else the one beside this program.
///
/// # Errors
/// This program's own place is not known.
pub fn imager(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let here = std::env::current_exe().context("cannot find this program's directory")?;
    Ok(here.with_file_name("imager"))
}

/// The workspace that this program was built from.
#[must_use]
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("STERNPOST_SOURCE"))
}
