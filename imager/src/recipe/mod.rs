//! Recipes: what an image contains.
//!
//! A recipe is a TOML file. `extends` names one or several others that it is laid over: a single
//! value replaces, lists grow, artefacts replace those of the same name, files are copied in order.
//! Paths are relative to the file they stand in. [`schema`] says what every field means.
use crate::arch::Architecture;

mod check;
mod load;
mod read;

pub(crate) use check::is_word;
pub mod schema;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A recipe, with what it extends merged in, every path absolute.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file it was read from.
    pub path: PathBuf,
    /// Short name, names the outputs.
    pub name: String,
    /// System or recovery.
    pub kind: Kind,
    /// The product that images of this recipe belong to; machines take no other's.
    pub product: String,
    /// Version of the image (at most 32 bytes); `--image-version` overrides.
    pub version: String,
    /// When it was last changed, in seconds since 1970, if it says so.
    pub time: Option<u64>,
    /// Raised when an older image must not come back.
    pub security_version: u64,
    /// Raised when the state of older versions is not read any more.
    pub state_epoch: u64,
    /// Id of the disk layout.
    pub layout: String,
    pub suite: String,
    /// Mirror; none: the bootstrap tool's default.
    pub mirror: Option<String>,
    /// Archive components (`main`, `non-free-firmware`).
    pub components: Vec<String>,
    /// Kernel package of each architecture.
    pub kernel: BTreeMap<Architecture, String>,
    /// Packages of each architecture (the common ones in each).
    pub packages: BTreeMap<Architecture, Vec<String>>,
    /// Packages that are needed to make the root but not in it.
    pub discard: Vec<String>,
    /// Programs and files that are not Debian packages.
    pub artefacts: Vec<Artefact>,
    /// Paths that are left out of the root; `*` stands for a part of a name.
    pub exclude: Vec<String>,
    /// Files and directories laid over the packages.
    pub files: Vec<Overlay>,
    /// Directories that outlive an upgrade.
    pub persist: Vec<Persist>,
    /// Extra words of the kernel command line.
    pub command_line: Vec<String>,
    /// Extra kernel modules that the initramfs must hold or load.
    pub initramfs_modules: Vec<String>,
    /// Slots are this many times the first image.
    pub headroom: f64,
    /// How the root is compressed.
    pub compression: Compression,
    pub recovery: Option<PathBuf>,
    /// Who gets in at the console of the recovery system.
    pub recovery_console: Console,
    pub profile: Option<PathBuf>,
    /// The Kubernetes distribution in the image.
    pub kubernetes: Option<Kubernetes>,
    /// The VM runtimes in the image.
    pub vm: Vec<String>,
    /// What is hardly meant in its files, each as `FILE:LINE:COLUMN: warning: MESSAGE`.
    pub warnings: Vec<String>,
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs from slot A or B.
    System,
    /// Runs from the recovery slot, wholly in memory.
    Recovery,
}

/// Who gets in at the console of the recovery system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Whoever stands there, as root.
    Open,
    /// Whom the profile gives a password.
    Password,
    /// Nobody.
    None,
}

/// A directory that outlives an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Absolute path in the running system.
    pub path: String,
    /// One per state epoch, or one shared by all versions.
    pub per_epoch: bool,
}

/// How the root is compressed: erofs' own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (the bundle compresses).
    Uncompressed,
    /// As mkfs.erofs -z takes it: `lz4hc,12`, `zstd,9`.
    Erofs(String),
}

/// Kubernetes in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Its distribution, as profiles name it.
    pub distribution: String,
    /// Its version without `v`.
    pub version: String,
}

/// A file, or a directory with all that is in it, copied into the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Absolute path on the host.
    pub from: PathBuf,
    /// Absolute path in the image.
    pub to: String,
    /// Permission bits; none: 0755 for what is executable and directories, 0644 otherwise.
    pub mode: Option<u32>,
}

/// Something that is not a Debian package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// Its name (`--source NAME=FILE`).
    pub name: String,
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits, 0755 if not set.
    pub mode: u32,
    /// Where it comes from: tried in order, the first that has it wins.
    pub sources: Vec<Source>,
}

/// One place where an artefact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Downloaded; only what has the SHA-256 is used. `member` picks a file of a .tar.gz.
    Url {
        /// One for each architecture.
        url: BTreeMap<Architecture, String>,
        /// Of what is downloaded, hexadecimal.
        sha256: BTreeMap<Architecture, String>,
        /// Path in the archive.
        member: Option<String>,
    },
    /// A file on the host; only what has the SHA-256 is used.
    File {
        /// Absolute path.
        path: PathBuf,
        /// Hexadecimal.
        sha256: BTreeMap<Architecture, String>,
    },
    /// Built from Go modules.
    Go(GoSource),
    /// An OCI archive around a program built from Go modules (`crate::sources::oci`).
    Image(ImageSource),
}

/// A small OCI image: one program and empty directories, under many names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Its only program, and its entry point: `/` and the name of the modules' directory.
    pub program: GoSource,
    /// References that it is imported under.
    pub names: Vec<String>,
    /// Empty directories, absolute; their parents are made.
    pub directories: Vec<String>,
}

/// A program built from Go modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoSource {
    /// Absolute path of a directory with go.mod and go.sum.
    pub modules: PathBuf,
    /// Import path of the command.
    pub package: String,
    /// Words for -ldflags beside `-s -w`.
    pub ldflags: Vec<String>,
    /// Words for -tags.
    pub tags: Vec<String>,
}

impl Recipe {
    /// Reads a recipe and what it extends.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or has mistakes: the error names all of them with file, line and
    /// column.
    pub fn load(path: &Path) -> Result<Self> {
        load::load(path)
    }

    /// The recipe of the recovery system, which belongs to the product of the system's.
    ///
    /// # Errors
    ///
    /// It cannot be read, has mistakes, or is not one of a recovery system.
    pub fn recovery_system(&self) -> Result<Option<Self>> {
        let Some(path) = &self.recovery else {
            return Ok(None);
        };
        let mut recovery = Self::load(path)?;
        ensure!(
            recovery.kind == Kind::Recovery,
            "{} is named as the recovery system of {} but does not say that it is one",
            path.display(),
            self.path.display()
        );
        recovery.product.clone_from(&self.product);
        recovery.layout.clone_from(&self.layout);
        // It has to run where the system runs: with the same drivers.
        recovery.kernel.clone_from(&self.kernel);
        recovery.recovery_console = self.recovery_console;
        Ok(Some(recovery))
    }
}

#[cfg(test)]
mod tests;
