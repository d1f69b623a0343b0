//! The root filesystem: packages, programs and files become one erofs image.
//!
//! ```text
//! packages ──► base tree (configured, an archive) ─┐
//! kernel package ──► modules, depmod, image ───────┤
//! artefacts (programs that are no packages) ───────┼─► one tree ──► tar stream ──► erofs
//! the recipe's files ──────────────────────────────┤
//! the caller's files (image.json, bootctl, …) ─────┘
//! ```
//!
//! Each arrow is a cached step, so that another version or another program repeats only the last
//! one. Nothing is unpacked as a file of the host on the way: owners and modes need no privileges,
//! and the same inputs give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Architecture;
use crate::debian::archive;
use crate::debian::lock::{self, Lock, Package};
use crate::recipe::{Compression, Kind, Recipe};
use crate::root::package_list::Listed;
use crate::root::tree::{Bytes, Entry, Node, Tree, host_files};
use crate::sources::{self, Found};
use crate::workshop::Workshop;
use crate::workshop::cache::{Cache, Key, KeyBuilder, hash_bytes, hash_file};

mod base;
mod clean;
mod console;
mod foreign_arch;
pub mod image_files;
mod kernel;
mod microcode;
pub mod package_list;
mod persist;
mod sysusers;
pub mod tree;

/// Erofs works in blocks of this size, and so does dm-verity.
const BLOCK: u64 = 4096;

/// A file that a caller adds to the image, over the packages and the recipe's own files.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Absolute path in the image; parents are made (0755).
    pub path: String,
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
    /// CPU microcode as an archive to put before the initramfs.
    pub microcode: Option<PathBuf>,
    pub packages: Vec<Listed>,
    /// What was resolved, or what the build was given.
    pub lock: Lock,
    recipe: Recipe,
    architecture: Architecture,
    base: base::Base,
    kernel: kernel::Kernel,
    artefacts: Vec<Found>,
    /// Kernels that the recipe brings modules for, and that this image does not have.
    other_kernels: BTreeSet<String>,
    /// What `packages` has of Debian's.
    pinned: Vec<Package>,
}

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
    /// See [`PreparedRoot::microcode`].
    pub microcode: Option<PathBuf>,
    pub packages: Vec<Listed>,
}

/// Options of one build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--source NAME=FILE`.
    pub sources: BTreeMap<String, PathBuf>,
    /// The packages to use; none: those that the archive has now.
    pub lock: Option<Lock>,
}

/// Packages, kernel and artefacts: what depends on the recipe alone.
///
/// # Errors
///
/// Packages cannot be resolved, downloaded or configured; no source has an artefact.
pub async fn prepare(
    workshop: &Workshop,
    recipe: &Recipe,
    architecture: Architecture,
    options: &Options,
) -> Result<PreparedRoot> {
    if let Some(mirror) = &recipe.mirror {
        workshop.credentials().learn(mirror);
    }
    let packages = async {
        let mut lock = match &options.lock {
            Some(lock) => lock.clone(),
            None => lock::resolve(workshop, recipe, architecture, false).await?,
        };
        lock.check(recipe)?;
        if let Err(error) = download(workshop, recipe, &lock).await {
            if options.lock.is_some() {
                return Err(error);
            }
            // The mirror has gone on since it was asked: ask again, once.
            let again = lock::resolve(workshop, recipe, architecture, true).await?;
            if again == lock {
                return Err(error);
            }
            lock = again;
            download(workshop, recipe, &lock).await?;
        }
        let made = tokio::try_join!(
            base::make(workshop, recipe, architecture, &lock),
            kernel::unpack(workshop, &lock.set(architecture)?.kernel),
        )?;
        anyhow::Ok((lock, made))
    };
    let artefacts = async {
        let fetches = recipe
            .artefacts
            .iter()
            .map(|artefact| sources::fetch(workshop, artefact, architecture, &options.sources));
        let mut found = Vec::new();
        for fetch in fetches {
            found.push(fetch.await?);
        }
        anyhow::Ok(found)
    };
    let ((lock, (base, kernel)), artefacts) = tokio::try_join!(packages, artefacts)?;
    let laid_over = laid_over(recipe, &artefacts)?;
    let (brought, other_kernels) = kernel::brought(&laid_over, &kernel.version)?;
    if !other_kernels.is_empty() {
        workshop.progress().line(&format!(
            "  {} ({architecture}): left out are the modules for {}; its kernel is {}",
            recipe.name,
            other_kernels
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" and "),
            kernel.version
        ));
    }
    let kernel = kernel::with_modules(workshop, kernel, &brought).await?;
    let set = lock.set(architecture)?;
    // Only where it was asked for: looking costs a second.
    let has_microcode = set.packages.iter().any(|p| p.name.ends_with("-microcode"));
    let microcode = match has_microcode {
        true => microcode::collect(workshop, &base).await?,
        false => None,
    };
    let mut inside: Vec<&Package> = set
        .packages
        .iter()
        .filter(|package| !recipe.discard.contains(&package.name))
        .chain([&set.kernel])
        .collect();
    inside.sort();
    let pinned = inside.iter().copied().cloned().collect();
    let mut list: Vec<Listed> = inside.into_iter().map(Listed::from).collect();
    for (artefact, found) in recipe.artefacts.iter().zip(&artefacts) {
        list.push(Listed::Artefact {
            name: artefact.name.clone(),
            source: found.source.clone(),
            sha256: hash_file(&found.path)?,
        });
    }
    Ok(PreparedRoot {
        kernel_image: kernel.image.clone(),
        kernel_version: kernel.version.clone(),
        modules: kernel.modules.clone(),
        microcode,
        kernel,
        packages: list,
        lock,
        recipe: recipe.clone(),
        architecture,
        base,
        artefacts,
        other_kernels,
        pinned,
    })
}

/// What a recipe lays over the packages: path in the image, and file of the host.
fn laid_over(recipe: &Recipe, artefacts: &[Found]) -> Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    for (artefact, found) in recipe.artefacts.iter().zip(artefacts) {
        all.push((artefact.path.clone(), found.path.clone()));
    }
    for overlay in &recipe.files {
        for file in host_files(&overlay.from)? {
            let inside = file.strip_prefix(&overlay.from).unwrap_or(&file);
            let path = Path::new(&overlay.to).join(inside);
            let path = path.to_string_lossy().trim_end_matches('/').to_owned();
            all.push((path, file));
        }
    }
    Ok(all)
}

/// Downloads what the lock names and the cache lacks.
async fn download(workshop: &Workshop, recipe: &Recipe, lock: &Lock) -> Result<()> {
    let mut wanted = Vec::new();
    for set in lock.sets.values() {
        wanted.extend(set.packages.iter().cloned());
    }
    for architecture in lock.sets.keys().filter(|a| recipe.kernel.contains_key(a)) {
        // The kernel of an architecture that only serves to configure is not needed.
        if lock.sets.len() == 1 || *architecture != Architecture::OWN {
            wanted.push(lock.set(*architecture)?.kernel.clone());
        }
    }
    wanted.sort();
    wanted.dedup();
    archive::fetch(workshop, &recipe.name, &wanted).await
}

impl PreparedRoot {
    /// When the newest package was built (seconds since 1970), and its name; none where none says it.
    ///
    /// # Errors
    ///
    /// A package cannot be had, or is damaged.
    pub async fn newest(&self, workshop: &Workshop) -> Result<Option<(u64, String)>> {
        // What was made of them may be older than what the cache still holds.
        archive::fetch(workshop, &self.recipe.name, &self.pinned).await?;
        let newest = archive::newest(workshop.cache(), &self.pinned)?;
        Ok(newest.map(|(time, package)| (time, package.name.clone())))
    }

    /// Lays `files` over and makes the erofs image, in which every file has the time `epoch` (seconds since
    /// 1970). We add persist.conf, packages.json and the tmpfiles.d lines; the caller brings trust.json,
    /// image.json, profile.yaml, bootctl and its units.
    pub async fn finish(
        &self,
        workshop: &Workshop,
        files: &[ImageFile],
        epoch: u64,
    ) -> Result<BuiltRoot> {
        let key = self.key(workshop, files, epoch)?;
        let what = format!("root of {} ({})", self.recipe.name, self.architecture);
        let made = workshop
            .step("root", &what, &key, async |out: &Path, step| {
                let mut tree = Tree::default();
                step.note("reading the packages");
                tree.read_tar(self.base.archive())?;
                let discarded = self.base.discarded(&tree, &self.recipe.discard);
                for path in discarded {
                    tree.remove(&path);
                }
                clean::clean(&mut tree, epoch);
                let asked_before = sysusers::Files::of(&tree);
                self.lay_over(&mut tree, files)?;
                let given = sysusers::apply(&mut tree, &asked_before, epoch)?;
                if !given.is_empty() {
                    workshop.progress().line(&format!(
                        "  {}: the image gives ids to {}; another image may give others, so who owns files on \
                         `state` is to have a fixed one in sysusers.d",
                        self.recipe.name,
                        given.join(", ")
                    ));
                }
                for version in &self.other_kernels {
                    tree.remove(&format!("usr/lib/modules/{version}"));
                }
                for pattern in &self.recipe.exclude {
                    tree.remove_matching(pattern);
                }
                kernel::check(&tree, &self.kernel)?;
                clean::finish(&mut tree);
                if self.recipe.kind == Kind::Recovery {
                    console::check(&tree, self.recipe.recovery_console)?;
                }
                persist::make_places(&mut tree, &self.recipe.persist)?;
                step.note("mkfs.erofs");
                self.erofs(workshop, tree, &key, epoch, &out.join("root.erofs"))
                    .await
            })
            .await?;
        Ok(BuiltRoot {
            erofs: made.join("root.erofs"),
            kernel_image: self.kernel_image.clone(),
            kernel_version: self.kernel_version.clone(),
            modules: self.modules.clone(),
            microcode: self.microcode.clone(),
            packages: self.packages.clone(),
        })
    }

    fn lay_over(&self, tree: &mut Tree, files: &[ImageFile]) -> Result<()> {
        let modules = format!("/usr/lib/modules/{}", self.kernel_version);
        tree.add_host(&self.modules, &modules, None)?;
        for (artefact, found) in self.recipe.artefacts.iter().zip(&self.artefacts) {
            let content = Node::File(Bytes::of_file(&found.path)?);
            tree.put(&artefact.path, Entry::new(content, artefact.mode))?;
        }
        for overlay in &self.recipe.files {
            tree.add_host(&overlay.from, &overlay.to, overlay.mode)?;
        }
        let text = |tree: &mut Tree, path: &str, text: String| {
            let bytes = Bytes::Memory(text.into_bytes().into());
            tree.insert(path, Entry::new(Node::File(bytes), 0o644));
        };
        text(
            tree,
            "/usr/lib/sternpost/persist.conf",
            persist::list(&self.recipe.persist),
        );
        text(
            tree,
            "/usr/lib/sternpost/packages.json",
            package_list::to_json(&self.packages)?,
        );
        for file in files {
            let entry = match &file.content {
                Content::Bytes(bytes, mode) => {
                    Entry::new(Node::File(Bytes::Memory(bytes.as_slice().into())), *mode)
                }
                Content::File(path, mode) => Entry::new(Node::File(Bytes::of_file(path)?), *mode),
                Content::Symlink(target) => Entry::new(Node::Symlink(target.clone()), 0o777),
                Content::Directory(mode) => Entry::new(Node::Directory, *mode),
            };
            tree.insert(&file.path, entry);
        }
        Ok(())
    }

    /// Everything that goes into the erofs image.
    fn key(&self, workshop: &Workshop, files: &[ImageFile], epoch: u64) -> Result<Key> {
        let cache = workshop.cache();
        let mut key = KeyBuilder::new("root-5")
            .value("base", self.base.key())
            .value("clean", clean::VERSION)
            .value("kernel", self.kernel.key.to_string())
            .value("epoch", epoch.to_string())
            .value("compression", format!("{:?}", self.recipe.compression))
            .value("exclude", self.recipe.exclude.join(" "))
            .value("discard", self.recipe.discard.join(" "))
            .value("persist", persist::list(&self.recipe.persist))
            .value("packages", package_list::to_json(&self.packages)?)
            .value("mkfs", workshop.tools_identity()?);
        for (artefact, found) in self.recipe.artefacts.iter().zip(&self.artefacts) {
            key = key
                .value("artefact", format!("{} {:o}", artefact.path, artefact.mode))
                .value("content", identity(cache, &found.path)?);
        }
        for overlay in &self.recipe.files {
            key = key.value("overlay", format!("{} {:?}", overlay.to, overlay.mode));
            for path in host_files(&overlay.from)? {
                let name = path.strip_prefix(&overlay.from).unwrap_or(&path);
                let meta = path.symlink_metadata()?;
                let content = if meta.is_symlink() {
                    format!("link {}", fs::read_link(&path)?.display())
                } else {
                    let executable = meta.permissions().mode() & 0o111 != 0;
                    format!("{executable} {}", hash_file(&path)?)
                };
                key = key
                    .value("name", name.to_string_lossy().as_bytes())
                    .value("content", content);
            }
        }
        for file in files {
            key = key.value("file", &file.path).value(
                "content",
                match &file.content {
                    Content::Bytes(bytes, mode) => format!("{mode:o} {}", hash_bytes(bytes)),
                    Content::File(path, mode) => format!("{mode:o} {}", identity(cache, path)?),
                    Content::Symlink(target) => format!("link {target}"),
                    Content::Directory(mode) => format!("directory {mode:o}"),
                },
            );
        }
        Ok(key.finish())
    }

    /// Streams the tree into mkfs.erofs.
    async fn erofs(
        &self,
        workshop: &Workshop,
        tree: Tree,
        key: &Key,
        epoch: u64,
        out: &Path,
    ) -> Result<()> {
        let tools = workshop.tools().await?;
        let mut mkfs = tools.std_command("mkfs.erofs")?;
        mkfs.args(["--quiet", "--tar=f", "-b4096"])
            .arg(format!("-T{epoch}"))
            .arg(format!("-U{}", uuid(key)));
        if let Compression::Erofs(compression) = &self.recipe.compression {
            mkfs.arg(format!("-z{compression}")).arg("-C65536");
        }
        mkfs.arg(out);
        let out = out.to_owned();
        tokio::task::spawn_blocking(move || {
            let log = tempfile::NamedTempFile::new()?;
            let mut child = mkfs
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(log.reopen()?)
                .spawn()
                .context("cannot start mkfs.erofs in the tools tree")?;
            let written = match child.stdin.take() {
                Some(stdin) => {
                    tree.write_tar(std::io::BufWriter::with_capacity(1 << 20, stdin), epoch)
                }
                None => bail!("mkfs.erofs has no standard input"),
            };
            let status = child.wait()?;
            let said = fs::read_to_string(log.path()).unwrap_or_default();
            ensure!(
                status.success(),
                "mkfs.erofs failed ({status}): {}",
                said.trim()
            );
            written?;
            let file = fs::File::options().write(true).open(&out)?;
            let length = file.metadata()?.len();
            file.set_len(length.div_ceil(BLOCK) * BLOCK)?;
            Ok(())
        })
        .await?
    }
}

/// What a file is: by its place, if it is part of a finished step or a blob; else by its content.
fn identity(cache: &Cache, path: &Path) -> Result<String> {
    for fixed in ["steps", "blobs"] {
        if let Ok(place) = path.strip_prefix(cache.path().join(fixed)) {
            return Ok(format!("{fixed}/{}", place.display()));
        }
    }
    hash_file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A UUID of version 8 (RFC 9562) that is the same for the same content.
fn uuid(key: &Key) -> String {
    let text = key.to_string();
    format!(
        "{}-{}-8{}-8{}-{}",
        &text[0..8],
        &text[8..12],
        &text[13..16],
        &text[17..20],
        &text[20..32]
    )
}
