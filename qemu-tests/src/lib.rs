//! Boots the real artefacts in emulated machines and breaks them on purpose.
//!
//! A [`scenario::Scenario`] gets a [`scenario::Context`]: images from [`artefacts`], throwaway copies of them
//! ([`disk`]), machines ([`machine`]) that run through `imager run`, their [`console`], commands inside ([`ssh`]), and
//! an HTTP [`server`]. Every wait has a limit, and what fails leaves its console log.

pub mod artefacts;
pub mod console;
pub mod cuts;
pub mod defects;
pub mod disk;
pub mod fault;
pub mod gdb;
pub mod ledger;
pub mod loaders;
pub mod machine;
pub mod places;
pub mod qmp;
pub mod saved;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod slots;
pub mod ssh;
pub mod steps;
pub mod stick;
pub mod story;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use boot_core::Architecture;

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

/// Where keys, images and logs are: the directory that was named, else the cache's.
#[must_use]
pub fn directory(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| cache_directory().join("qemu-tests"), Path::to_owned)
}

/// The architecture that an option names.
///
/// # Errors
/// Images are built for no such one.
pub fn architecture(name: &str) -> Result<Architecture> {
    [Architecture::X86_64, Architecture::Aarch64]
        .into_iter()
        .find(|architecture| architecture.name() == name)
        .ok_or_else(|| {
            anyhow!("`{name}` is no architecture that images are built for; use x86_64 or aarch64")
        })
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
