//! The base tree: a root's packages, configured, as one archive.
//!
//! For the host's own architecture, mmdebstrap installs the packages from a local archive of
//! exactly the pinned files. For the other architecture see [`super::foreign_arch`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Architecture;
use crate::debian::archive;
use crate::debian::lock::{Lock, Package};
use crate::recipe::Recipe;
use crate::root::tree::{Node, Tree};
use crate::workshop::Workshop;
use crate::workshop::cache::{Key, KeyBuilder};
use crate::workshop::tools;

use super::foreign_arch;

/// The time that maintainer scripts are told; what is in the image gets the build's.
const SCRIPT_EPOCH: &str = "1735689600";

/// A configured tree in the cache.
#[derive(Clone, Debug)]
pub(super) struct Base {
    key: Key,
    archive: PathBuf,
}

impl Base {
    /// Names its content.
    pub(super) fn key(&self) -> String {
        self.key.to_string()
    }

    pub(super) fn archive(&self) -> &Path {
        &self.archive
    }

    /// The files of the packages that the recipe discards, as dpkg's database in the tree lists
    /// them. A tree of another architecture has no database: there they were left out before.
    pub(super) fn discarded(&self, tree: &Tree, packages: &[String]) -> Vec<String> {
        let mut files = Vec::new();
        for path in tree.below("var/lib/dpkg/info") {
            let name = path.rsplit('/').next().unwrap_or_default();
            let Some(package) = name.strip_suffix(".list") else {
                continue;
            };
            let package = package.split(':').next().unwrap_or_default();
            if !packages.iter().any(|discarded| discarded == package) {
                continue;
            }
            let Some(Node::File(list)) = tree.get(&path).map(|entry| &entry.node) else {
                continue;
            };
            let list = list.read().unwrap_or_default();
            for file in String::from_utf8_lossy(&list).lines() {
                if tree.get(file).is_some_and(|e| e.node != Node::Directory) {
                    files.push(file.to_owned());
                }
            }
        }
        files
    }
}

/// Makes, or finds, the tree of an architecture.
pub(super) async fn make(
    workshop: &Workshop,
    recipe: &Recipe,
    architecture: Architecture,
    lock: &Lock,
) -> Result<Base> {
    let host = Architecture::OWN;
    let native = lock.set(host)?;
    if architecture == host {
        return configured(workshop, recipe, &native.packages).await;
    }
    let foreign = lock.set(architecture)?;
    let (configured, before, after) = tokio::try_join!(
        configured(workshop, recipe, &native.packages),
        foreign_arch::unpacked(workshop, host, &native.packages, &[]),
        foreign_arch::unpacked(workshop, architecture, &foreign.packages, &recipe.discard),
    )?;
    foreign_arch::check(workshop, &native.packages, &foreign.packages).await?;
    let key = KeyBuilder::new(foreign_arch::VERSION)
        .value("configured", configured.key())
        .value("before", before.key.to_string())
        .value("after", after.key.to_string())
        .finish();
    let what = format!("configuring packages for {architecture}");
    let directory = workshop
        .step("base", &what, &key, async |out: &Path, _| {
            let out = out.join("root.tar");
            let archives = [
                configured.archive.clone(),
                before.archive.clone(),
                after.archive.clone(),
            ];
            tokio::task::spawn_blocking(move || {
                let [configured, before, after] = archives.map(|path| {
                    let mut tree = Tree::default();
                    tree.read_tar(&path).map(|()| tree)
                });
                let tree = foreign_arch::carry_over(&configured?, &before?, after?)?;
                tree.write_tar(std::io::BufWriter::new(fs::File::create(&out)?), 0)
            })
            .await?
        })
        .await?;
    Ok(Base {
        key,
        archive: directory.join("root.tar"),
    })
}

/// Packages of the host's architecture, installed with their maintainer scripts.
async fn configured(workshop: &Workshop, recipe: &Recipe, packages: &[Package]) -> Result<Base> {
    let mut key = KeyBuilder::new("configured-1").value("suite", &recipe.suite);
    for package in packages {
        key = key.value(&package.name, &package.sha256);
    }
    let key = key.finish();
    let directory = workshop
        .step(
            "base",
            "installing packages",
            &key,
            async |out: &Path, step| {
                archive::fetch(workshop, &recipe.name, packages).await?;
                step.note("mmdebstrap");
                // Who is not root installs in a user namespace, whose users must be able to read this.
                let archive = tempfile::Builder::new()
                    .prefix("imager-packages-")
                    .tempdir()?;
                fs::set_permissions(
                    archive.path(),
                    std::os::unix::fs::PermissionsExt::from_mode(0o755),
                )?;
                archive::local_archive(workshop, packages, archive.path()).await?;
                let names: Vec<_> = packages.iter().map(|p| p.name.as_str()).collect();
                let mut bootstrap = tools::mmdebstrap("essential");
                bootstrap
                    .env("SOURCE_DATE_EPOCH", SCRIPT_EPOCH)
                    .arg(format!("--include={}", names.join(",")))
                    // No suite: the local archive has no release file that names one.
                    .args(["", "-"])
                    .arg(format!(
                        "deb [trusted=yes] copy:{} ./",
                        archive.path().display()
                    ));
                let output = out.join("root.tar");
                tokio::task::spawn_blocking(move || {
                    let mut sink = Command::new("cat");
                    sink.stdout(
                        fs::File::create(&output)
                            .with_context(|| format!("cannot write {}", output.display()))?,
                    );
                    tools::pipe(&mut bootstrap, &mut sink)
                })
                .await?
            },
        )
        .await?;
    Ok(Base {
        key,
        archive: directory.join("root.tar"),
    })
}
