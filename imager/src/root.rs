//! The root filesystem: packages, programs and files become one erofs image.
use crate::arch::Architecture;
use crate::lock::Package;
use crate::recipe::Recipe;
use crate::step::Workshop;
use anyhow::{Result, bail};
use std::path::PathBuf;

/// A file that a caller adds to the image, over the packages and the recipe's own files.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Absolute path in the image; parents are made (0755).
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an [`ImageFile`] is. Owner is root, times are the build's.
#[derive(Clone, Debug)]
pub enum Content {
    /// A file with these bytes and permission bits.
    Bytes(Vec<u8>, u32),
    /// A file copied from the host, with permission bits.
    File(PathBuf, u32),
    /// A symbolic link to this target.
    Symlink(String),
    /// An empty directory with permission bits.
    Directory(u32),
}

/// What is known of a root before the caller's own files are in: enough to write image.json.
#[derive(Clone, Debug)]
pub struct PreparedRoot {
    /// The kernel, as the package has it (x86_64: bzImage; aarch64: raw PE Image).
    pub kernel_image: PathBuf,
    /// `uname -r` of it.
    pub kernel_version: String,
    /// `lib/modules/VERSION` of it: modules.dep, modules.alias, modules.builtin and the `.ko.xz`.
    pub modules: PathBuf,
    /// What is inside.
    pub packages: Vec<Package>,
}

/// A finished root.
#[derive(Clone, Debug)]
pub struct BuiltRoot {
    /// The erofs image; its size is a multiple of 4096; no verity tree yet.
    pub erofs: PathBuf,
    /// See [`PreparedRoot::kernel_image`].
    pub kernel_image: PathBuf,
    /// See [`PreparedRoot::kernel_version`].
    pub kernel_version: String,
    /// See [`PreparedRoot::modules`].
    pub modules: PathBuf,
    /// What is inside.
    pub packages: Vec<Package>,
}

/// Options of one build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--source NAME=FILE`.
    pub sources: std::collections::BTreeMap<String, PathBuf>,
    /// `--lock FILE`.
    pub lock: Option<PathBuf>,
    /// Seconds since 1970 that every file gets.
    pub source_date_epoch: u64,
}

/// Packages, kernel and artefacts: what depends on the recipe alone.
pub async fn prepare(
    workshop: &Workshop,
    recipe: &Recipe,
    architecture: Architecture,
    options: &Options,
) -> Result<PreparedRoot> {
    let _ = (workshop, recipe, architecture, options);
    bail!("not built yet")
}

impl PreparedRoot {
    /// Lays `files` over and makes the erofs image. We add persist.conf, packages.json and the tmpfiles.d lines; the
    /// caller brings trust.json, image.json, profile.yaml, bootctl and its units.
    pub async fn finish(&self, workshop: &Workshop, files: &[ImageFile]) -> Result<BuiltRoot> {
        let _ = (workshop, files);
        bail!("not built yet")
    }
}
