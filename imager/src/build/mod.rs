//! From a recipe to everything that a build leaves behind: roots, UKIs, signed manifests, disk, bundle.
//!
//! ```text
//! packages ─┬─ prepared root ──┬─ erofs ─ verity ─┬─ UKI ─ manifest ─┬─ disk.raw
//! programs ─┴─ (keys, profile) ┘      initramfs ──┘   (signature)    ├─ bundle.spb, recovery.spb
//!         └─── loader (trust) ──────────────────────────────────────┴─ loader.spb
//! ```
//!
//! Whatever depends on neither the clock nor a signature is a cached step; the last two are written
//! afresh each time, from parts that are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use boot_core::manifest::{Build, CHUNK_SIZE, Contents, Kind, Kubernetes, Manifest, Root, Uki};
use boot_core::{Digest, SecurityVersion, Version, layout};

use crate::arch::Architecture;
use crate::boot::modules::ModuleList;
use crate::boot::{initramfs, loader, modules, uki};
use crate::build::outputs::Outputs;
use crate::build::programs::Programs;
use crate::build::staging::Staging;
use crate::debian::lock::Lock;
use crate::output::disk::{self, RootImage, SlotImage};
use crate::output::frames::Frames;
use crate::output::{bundle, state, verity};
use crate::recipe::{self, Recipe};
use crate::release::authority::Authority;
use crate::root::image_files::{Identity, checked_profile, image_facts, image_files};
use crate::root::{self, BuiltRoot};
use crate::sources;
use crate::workshop::Workshop;
use crate::workshop::cache::KeyBuilder;

pub mod outputs;
pub mod programs;
pub mod staging;
pub(crate) mod warnings;

/// What manifests say that they were made by.
pub(crate) const TOOL: &str = concat!("imager ", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub struct Order {
    pub recipe: Recipe,
    /// Version and architecture; its time is the build's to find.
    pub identity: Identity,
    /// The recovery system's time: the build's to find.
    pub recovery_epoch: u64,
    /// The time of everything, in seconds since 1970; none: that of what is newest in each system.
    pub time: Option<u64>,
    pub authority: Authority,
    /// The default profile; none: the recipe's.
    pub profile: Option<PathBuf>,
    /// Bytes in a sector of the disk.
    pub sector_size: u32,
    /// zstd's level for the bundle.
    pub bundle_level: i32,
    /// Whether to pack the disk as well.
    pub pack_disk: bool,
    /// How the roots are made.
    pub root_options: root::Options,
    /// Seconds since 1970 after which the image is not installed any more.
    pub expires: Option<u64>,
    /// Whether what is hardly meant is refused.
    pub deny_warnings: bool,
    pub out: PathBuf,
}

#[derive(Debug)]
pub struct Outcome {
    pub manifest: Manifest,
    pub digest: Digest,
    /// Names and sizes of the files in the output directory.
    pub files: Vec<(String, u64)>,
}

/// Builds everything.
///
/// # Errors
/// Any part fails; the outputs of an earlier build then stay as they are, unless it is their exchange that fails.
pub async fn build(workshop: &Workshop, mut order: Order) -> Result<Outcome> {
    let recipe = &order.recipe;
    ensure!(
        recipe.kind == recipe::Kind::System,
        "{} describes a recovery system, which is built as a part of a system's image; build the system's recipe",
        recipe.path.display()
    );
    ensure!(
        recipe.product == order.authority.keyring.product,
        "the recipe {} is for product `{}`, the keys are for `{}`; use that product's keys",
        recipe.path.display(),
        recipe.product,
        order.authority.keyring.product
    );
    let said = match order.profile.as_deref().or(recipe.profile.as_deref()) {
        // Before minutes go into what the profile would then spoil.
        Some(it) => Some(checked_profile(it, &image_facts(recipe, &order.identity, ""))?.1),
        None => None,
    };
    let architecture = order.identity.architecture;
    let recovery = recipe.recovery_system()?;
    let recipes: Vec<&Recipe> = std::iter::once(recipe).chain(&recovery).collect();
    sources::check_names(&order.root_options.sources, &recipes)?;
    warnings::say(&recipes, said.as_ref(), order.deny_warnings, |text| {
        workshop.progress().line(text);
    })?;
    let staging = Staging::open(&order.out, |text| workshop.progress().line(text))?;
    workshop.tools().await?;
    let recovery_prepared = async {
        let Some(recovery) = &recovery else {
            return Ok(None);
        };
        let mut options = order.root_options.clone();
        options.lock = options
            .lock
            .and_then(|lock| lock.recovery)
            .map(|lock| *lock);
        let prepared = root::prepare(workshop, recovery, architecture, &options);
        prepared.await.map(Some)
    };
    let (programs, prepared, recovery_prepared) = tokio::try_join!(
        programs::build(workshop, architecture),
        root::prepare(workshop, recipe, architecture, &order.root_options),
        recovery_prepared,
    )?;
    let given = order.time;
    let time = async |recipe: &Recipe, prepared: &root::PreparedRoot| match given {
        Some(time) => Ok(time),
        None => {
            let package = prepared.newest(workshop).await?;
            newest(recipe, package.as_ref(), SystemTime::now())
        }
    };
    let system_time = time(&order.recipe, &prepared).await?;
    let recovery_time = match recovery.as_ref().zip(recovery_prepared.as_ref()) {
        Some((recipe, prepared)) => time(recipe, prepared).await?,
        None => system_time,
    };
    order.identity.epoch = system_time;
    order.recovery_epoch = recovery_time;
    let order = &order;
    let roots = Roots::finish(
        workshop,
        order,
        &programs,
        &prepared,
        recovery,
        recovery_prepared,
    )
    .await?;
    from_roots(workshop, order, &programs, &roots, staging).await
}

/// The time of what is newest in a root: the same for the same recipe and packages, whenever it is built.
///
/// # Errors
/// It is yet to come. The clocks of machines are never set before an image's time, so they would be wrong.
fn newest(recipe: &Recipe, package: Option<&(u64, String)>, now: SystemTime) -> Result<u64> {
    let (time, what) = match (recipe.time, package) {
        (Some(time), Some((package, _))) if time >= *package => (time, "its recipe".to_owned()),
        (_, Some((time, name))) => (*time, format!("the package {name}")),
        (time, None) => (time.unwrap_or(0), "its recipe".to_owned()),
    };
    ensure!(
        SystemTime::UNIX_EPOCH + Duration::from_secs(time) <= now + Duration::from_secs(86_400),
        "{}: {what} is of a day that is yet to come, by this host's clock ({time} seconds after 1970); set the clock \
         if it is wrong, or say the time in SOURCE_DATE_EPOCH",
        recipe.name
    );
    Ok(time)
}

/// Finished roots: what is left to do needs no packages any more.
#[derive(Clone, Debug)]
struct Roots {
    system: BuiltRoot,
    /// The recovery system's, and its recipe.
    recovery: Option<(Recipe, BuiltRoot)>,
    /// The packages of both, pinned.
    lock: Option<Lock>,
}

impl Roots {
    async fn finish(
        workshop: &Workshop,
        order: &Order,
        programs: &Programs,
        prepared: &root::PreparedRoot,
        recovery: Option<Recipe>,
        recovery_prepared: Option<root::PreparedRoot>,
    ) -> Result<Self> {
        let mut lock = prepared.lock.clone();
        lock.recovery = recovery_prepared
            .as_ref()
            .map(|prepared| Box::new(prepared.lock.clone()));
        let system = finish_root(
            workshop,
            order,
            programs,
            &order.recipe,
            &order.identity,
            prepared,
        );
        let recovery = async {
            let Some((recipe, prepared)) = recovery.zip(recovery_prepared) else {
                return Ok(None);
            };
            let identity = order.recovery_identity(&recipe);
            let built =
                finish_root(workshop, order, programs, &recipe, &identity, &prepared).await?;
            Ok(Some((recipe, built)))
        };
        let (system, recovery) = tokio::try_join!(system, recovery)?;
        Ok(Self {
            system,
            recovery,
            lock: Some(lock),
        })
    }
}

async fn finish_root(
    workshop: &Workshop,
    order: &Order,
    programs: &Programs,
    recipe: &Recipe,
    identity: &Identity,
    prepared: &root::PreparedRoot,
) -> Result<BuiltRoot> {
    let architecture = identity.architecture;
    let trust = order.authority.trust(architecture, &recipe.layout);
    let own = order
        .profile
        .as_deref()
        .filter(|_| recipe.kind == recipe::Kind::System);
    let profile = own.or(recipe.profile.as_deref());
    let files = image_files(
        recipe,
        identity,
        &prepared.kernel_version,
        &trust,
        profile,
        programs,
    )?;
    prepared.finish(workshop, &files, identity.epoch).await
}

/// Everything after the roots: trees, UKIs, manifests, disk and bundle.
async fn from_roots(
    workshop: &Workshop,
    order: &Order,
    programs: &Programs,
    roots: &Roots,
    staging: Staging,
) -> Result<Outcome> {
    let maker = Maker {
        workshop,
        order,
        programs,
    };
    let recovery = async {
        match &roots.recovery {
            Some((recipe, built)) => maker.recovery(recipe, built).await.map(Some),
            None => Ok(None),
        }
    };
    let system = maker.system(&order.recipe, &roots.system);
    let ((system, leaves), recovery, state) = tokio::try_join!(system, recovery, maker.state())?;
    let loader = maker.loader(&staging)?;
    let outputs = Outputs {
        system: &system,
        recovery: recovery.as_ref(),
        sector_size: order.sector_size,
        recipe: &order.recipe,
        packages: &roots.system.packages,
        lock: roots.lock.as_ref(),
    };
    maker
        .write(&outputs, leaves, &loader, &state, &staging)
        .await?;
    let lock = outputs.write(&staging)?;
    let files = blocking(move || staging.finish(lock.as_deref())).await?;
    Ok(Outcome {
        manifest: system.manifest.clone(),
        digest: system.signed.digest,
        files,
    })
}

impl Order {
    /// The recovery system keeps its own version and time: it changes when its recipe does, not with each image.
    fn recovery_identity(&self, recipe: &Recipe) -> Identity {
        Identity {
            version: recipe.version.clone(),
            security_version: recipe.security_version,
            epoch: self.recovery_epoch,
            ..self.identity.clone()
        }
    }
}

/// A finished initramfs, and which watchdogs it can open.
struct Initramfs {
    packed: PathBuf,
    watchdogs: Vec<String>,
}

struct Maker<'a> {
    workshop: &'a Workshop,
    order: &'a Order,
    programs: &'a Programs,
}

impl Maker<'_> {
    fn architecture(&self) -> Architecture {
        self.order.identity.architecture
    }

    /// The system's slot, and the leaves of its root.
    async fn system(&self, recipe: &Recipe, built: &BuiltRoot) -> Result<(SlotImage, Vec<u8>)> {
        let identity = &self.order.identity;
        let tree = self.verity(&recipe.product, built).await?;
        let hash = tree.root.hash.to_string();
        let command_line = uki::command_line(
            self.architecture(),
            uki::Root::Verity(&hash),
            &recipe.command_line,
        );
        let initramfs = self.initramfs(recipe, built, &command_line, None).await?;
        let uki = self
            .uki(recipe, identity, built, &command_line, &initramfs.packed)
            .await?;
        let root = RootImage {
            data: built.erofs.clone(),
            tree: tree.directory.join("tree"),
        };
        let leaves = tree.directory.join("leaves");
        let leaves = fs::read(&leaves).with_context(|| format!("reading {}", leaves.display()))?;
        let image = self.sign(
            recipe,
            identity,
            built,
            uki,
            initramfs.watchdogs,
            Some((tree.root, root)),
        )?;
        Ok((image, leaves))
    }

    async fn recovery(&self, recipe: &Recipe, built: &BuiltRoot) -> Result<SlotImage> {
        let identity = self.order.recovery_identity(recipe);
        let command_line = uki::command_line(
            self.architecture(),
            uki::Root::Recovery,
            &recipe.command_line,
        );
        let initramfs = self
            .initramfs(recipe, built, &command_line, Some(&built.erofs))
            .await?;
        let uki = self
            .uki(recipe, &identity, built, &command_line, &initramfs.packed)
            .await?;
        self.sign(recipe, &identity, built, uki, initramfs.watchdogs, None)
    }

    async fn verity(&self, product: &str, built: &BuiltRoot) -> Result<Tree> {
        let salt = verity::salt(product);
        let key = KeyBuilder::new("verity-1")
            .value("root", self.place(&built.erofs))
            .value("salt", salt.to_string())
            .finish();
        let erofs = built.erofs.clone();
        let directory = self
            .workshop
            .step(
                "verity",
                "verity tree of the root",
                &key,
                async |out: &Path, _| {
                    let out = out.to_owned();
                    let erofs = erofs.clone();
                    blocking(move || {
                        let hashed = verity::hash_file(&erofs, salt)?;
                        fs::write(out.join("tree"), &hashed.tree)?;
                        fs::write(out.join("leaves"), &hashed.leaves)?;
                        fs::write(out.join("root.json"), serde_json::to_vec(&hashed.root)?)?;
                        Ok(())
                    })
                    .await
                },
            )
            .await?;
        let root = fs::read(directory.join("root.json"))
            .context("reading what is known of the verity tree")?;
        Ok(Tree {
            root: serde_json::from_slice(&root)
                .context("reading what is known of the verity tree")?,
            directory,
        })
    }

    async fn initramfs(
        &self,
        recipe: &Recipe,
        built: &BuiltRoot,
        command_line: &str,
        recovery_root: Option<&Path>,
    ) -> Result<Initramfs> {
        let list_path = programs::workspace()?.join("recipes/initramfs/modules.toml");
        let mut list = ModuleList::read(&list_path)?;
        list.always.extend(recipe.initramfs_modules.iter().cloned());
        let chosen = modules::select(
            &list,
            &built.modules,
            &built.kernel_version,
            recovery_root.is_some(),
        )?;
        let index = serde_json::to_vec(&chosen.index).context("encoding modules.json")?;
        let level = if recovery_root.is_some() { 12 } else { 19 };
        let key = KeyBuilder::new("initramfs-1")
            .file("agent", &self.programs.initrd)?
            .value("command line", command_line)
            .value("modules", &index)
            .value("modules from", self.place(&built.modules))
            .value(
                "root",
                recovery_root
                    .map(|root| self.place(root))
                    .unwrap_or_default(),
            )
            .finish();
        let what = if recovery_root.is_some() {
            "recovery's initramfs"
        } else {
            "initramfs"
        };
        let tools = self.workshop.tools().await?;
        let directory = self
            .workshop
            .step("initramfs", what, &key, async |out: &Path, _| {
                let modules = modules::read(tools, &chosen.files).await?;
                let agent = fs::read(&self.programs.initrd).context("reading the initrd agent")?;
                let index = index.clone();
                let command_line = command_line.to_owned();
                let root = recovery_root.map(Path::to_owned);
                let out = out.join("initramfs.zst");
                blocking(move || {
                    let archive = initramfs::archive(&initramfs::Contents {
                        agent: &agent,
                        cmdline: &command_line,
                        modules_json: &index,
                        modules: &modules,
                        recovery_root: root.as_deref(),
                    })?;
                    fs::write(&out, initramfs::compress(&archive, level)?)?;
                    Ok(())
                })
                .await
            })
            .await?;
        Ok(Initramfs {
            packed: directory.join("initramfs.zst"),
            watchdogs: chosen.index.watchdog,
        })
    }

    async fn uki(
        &self,
        recipe: &Recipe,
        identity: &Identity,
        built: &BuiltRoot,
        command_line: &str,
        packed: &Path,
    ) -> Result<PathBuf> {
        let tools = self.workshop.tools().await?;
        let stub = tools.efi_stub(self.architecture());
        let os_release = format!(
            "ID=sternpost\nNAME=\"{product}\"\nVERSION_ID=\"{version}\"\nPRETTY_NAME=\"{product} {version}\"\n",
            product = recipe.product,
            version = identity.version,
        );
        let microcode = built.microcode.as_deref();
        let key = KeyBuilder::new("uki-2")
            .value("initramfs", self.place(packed))
            .value(
                "microcode",
                microcode.map(|path| self.place(path)).unwrap_or_default(),
            )
            .value("kernel", self.place(&built.kernel_image))
            .value("kernel version", &built.kernel_version)
            .value("command line", command_line)
            .value("os-release", &os_release)
            .file("stub", &stub)?
            .value("tools", tools.identity())
            .finish();
        let what = format!("UKI of {} {}", recipe.name, identity.version);
        let directory = self
            .workshop
            .step("uki", &what, &key, async |out: &Path, _| {
                let parts = uki::Parts {
                    architecture: self.architecture(),
                    stub: &stub,
                    kernel: &built.kernel_image,
                    kernel_version: &built.kernel_version,
                    initramfs: packed,
                    microcode,
                    command_line,
                    os_release: &os_release,
                    epoch: identity.epoch,
                };
                uki::build(tools, &parts, &out.join("uki.efi")).await
            })
            .await?;
        Ok(directory.join("uki.efi"))
    }

    fn sign(
        &self,
        recipe: &Recipe,
        identity: &Identity,
        built: &BuiltRoot,
        uki: PathBuf,
        watchdogs: Vec<String>,
        root: Option<(Root, RootImage)>,
    ) -> Result<SlotImage> {
        let version: Version = identity
            .version
            .parse()
            .with_context(|| format!("`{}` cannot be the version of an image", identity.version))?;
        let (root, root_image) = root.unzip();
        let manifest = Manifest {
            format: boot_core::manifest::FORMAT,
            product: recipe.product.clone(),
            kind: if root.is_some() {
                Kind::System
            } else {
                Kind::Recovery
            },
            layout: recipe.layout.clone(),
            version,
            security_version: SecurityVersion(identity.security_version),
            state_epoch: recipe.state_epoch,
            architecture: identity.architecture,
            uki: Some(describe_uki(&uki)?),
            root,
            events: Vec::new(),
            contents: Contents {
                kernel: built.kernel_version.clone(),
                kubernetes: recipe.kubernetes.as_ref().map(|kubernetes| Kubernetes {
                    distribution: kubernetes.distribution.clone(),
                    version: kubernetes.version.clone(),
                }),
                vm: recipe
                    .vm
                    .first()
                    .cloned()
                    .unwrap_or_else(|| "none".to_owned()),
                watchdogs,
            },
            build: Build {
                time: identity.epoch,
                tool: TOOL.to_owned(),
                recipe: recipe.name.clone(),
            },
            expires: self.order.expires,
        };
        let signed = self.order.authority.sign(&manifest)?;
        Ok(SlotImage {
            manifest,
            signed,
            chain: self.order.authority.chain.clone(),
            uki,
            root: root_image,
        })
    }

    /// The loader's image; the program itself is an output.
    fn loader(&self, staging: &Staging) -> Result<SlotImage> {
        let Order {
            recipe,
            identity,
            authority,
            ..
        } = self.order;
        let trust = authority.trust(self.architecture(), &recipe.layout);
        let program = fs::read(&self.programs.loader)
            .with_context(|| format!("reading the loader {}", self.programs.loader.display()))?;
        let path = staging.path("loader.efi");
        fs::write(&path, loader::with_trust(program, &trust)?)
            .with_context(|| format!("writing {}", path.display()))?;
        let release = loader::Release {
            version: identity.version.clone(),
            security_version: identity.security_version,
            time: identity.epoch,
            recipe: recipe.name.clone(),
            expires: self.order.expires,
        };
        loader::sign(&path, authority, &release)
    }

    async fn state(&self) -> Result<PathBuf> {
        let product = &self.order.recipe.product;
        let epoch = self.order.identity.epoch;
        let tools = self.workshop.tools().await?;
        let key = KeyBuilder::new("state-2")
            .value("options", layout::STATE_FILESYSTEM.join(" "))
            .value("product", product)
            .value("time", epoch.to_string())
            .value("tools", tools.identity())
            .finish();
        let directory = self
            .workshop
            .step("state", "state filesystem", &key, async |out: &Path, _| {
                state::make_state(tools, &out.join("state.img"), product, epoch).await
            })
            .await?;
        Ok(directory.join("state.img"))
    }

    /// Disk image and bundles, read again once they are there.
    async fn write(
        &self,
        outputs: &Outputs<'_>,
        leaves: Vec<u8>,
        loader: &SlotImage,
        state: &Path,
        staging: &Staging,
    ) -> Result<()> {
        let progress = self.workshop.progress();
        let (system, recovery) = (outputs.system, outputs.recovery);
        let disk_path = staging.path("disk.raw");
        let images: Vec<_> = [
            Some((system.clone(), leaves, staging.path("bundle.spb"))),
            Some((loader.clone(), vec![], staging.path("loader.spb"))),
            recovery.map(|image| (image.clone(), vec![], staging.path("recovery.spb"))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let made: Vec<PathBuf> = std::iter::once(&disk_path)
            .chain(images.iter().map(|(.., path)| path))
            .cloned()
            .collect();
        let disk = {
            let step = progress.start("disk image");
            let (system, recovery) = (system.clone(), recovery.cloned());
            let (loader, state) = (loader.clone(), state.to_owned());
            let (headroom, sector_size) = (self.order.recipe.headroom, self.order.sector_size);
            let path = disk_path.clone();
            blocking(move || {
                let parts = disk::Parts {
                    system: &system,
                    recovery: recovery.as_ref(),
                    loader: &loader,
                    state: &state,
                    headroom,
                    sector_size,
                };
                disk::write(&parts, &path)?;
                step.done();
                Ok(())
            })
        };
        let spb = {
            let step = progress.start("bundles");
            let frames = Frames::new(self.workshop.cache(), self.order.bundle_level)?;
            blocking(move || {
                for (image, leaves, path) in images {
                    bundle::write(&image, &leaves, &frames, &path, &step)?;
                }
                step.done();
                Ok(())
            })
        };
        tokio::try_join!(disk, spb)?;
        let step = progress.start("checking disk image and bundles");
        let trust = (self.order.authority).trust(self.architecture(), &self.order.recipe.layout);
        blocking(move || {
            outputs::check(&made, &trust)?;
            step.done();
            Ok(())
        })
        .await?;
        if self.order.pack_disk {
            let step = progress.start("packed disk image");
            let packed = staging.path("disk.raw.zst");
            blocking(move || {
                disk::pack(&disk_path, &packed, &step)?;
                step.done();
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// A cached file by its place in the cache, which is named after what went into it.
    fn place(&self, path: &Path) -> String {
        path.strip_prefix(self.workshop.cache().path())
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

struct Tree {
    root: Root,
    directory: PathBuf,
}

/// What a manifest says of a UKI or a loader.
pub(crate) fn describe_uki(path: &Path) -> Result<Uki> {
    let bytes = fs::read(path).with_context(|| format!("reading the UKI {}", path.display()))?;
    let size = bytes.len() as u64;
    let chunks = verity::in_chunks(size, |offset, length| {
        let start = usize::try_from(offset)?;
        let chunk = bytes
            .get(start..start + length)
            .context("a chunk past the end")?;
        Ok(Digest::of(chunk))
    })?;
    Ok(Uki {
        size,
        digest: Digest::of(&bytes),
        chunk_size: CHUNK_SIZE,
        chunks,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a worker stopped")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_as_old_as_what_is_newest_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = |time: &str| {
            let file = folder.path().join("box.toml");
            let text = "product = \"box\"\n[kernel]\nx86_64 = \"linux\"\n[packages]\n";
            fs::write(&file, format!("{time}\n{text}")).unwrap();
            Recipe::load(&file).unwrap()
        };
        let (silent, dated) = (recipe(""), recipe("time = \"1970-01-03\""));
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * 86_400);
        let package = |time: u64| (time, "bash".to_owned());
        for now in [day(2), day(20_000)] {
            let time = |recipe, package| newest(recipe, Some(&package), now).unwrap();
            assert_eq!(time(&silent, package(7)), 7);
            assert_eq!(time(&dated, package(7)), 2 * 86_400);
            assert_eq!(time(&dated, package(2 * 86_400 + 1)), 2 * 86_400 + 1);
        }
        let refused = |recipe, package| {
            let error = newest(recipe, Some(&package), day(0)).unwrap_err();
            error.to_string()
        };
        assert!(refused(&silent, package(100_000)).contains("the package bash is"));
        assert!(refused(&dated, package(7)).contains("its recipe is"));
    }
}
