//! The kernel: unpacked, never installed, because its scripts would build an initramfs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::boot::modules::module_name;
use crate::debian::archive;
use crate::debian::lock::Package;
use crate::root::tree::Tree;
use crate::workshop::Workshop;
use crate::workshop::cache::{Key, KeyBuilder};
use crate::workshop::tool::run;

/// An unpacked kernel in the cache.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) key: Key,
    pub(super) image: PathBuf,
    pub(super) version: String,
    pub(super) modules: PathBuf,
}

/// Unpacks a kernel package and runs depmod on its modules.
pub(super) async fn unpack(workshop: &Workshop, package: &Package) -> Result<Kernel> {
    let key = KeyBuilder::new("kernel-1")
        .value("package", &package.sha256)
        .finish();
    let what = format!("kernel {} {}", package.architecture, package.version);
    let directory = workshop
        .step("kernel", &what, &key, async |out: &Path, step| {
            archive::fetch(workshop, &package.name, std::slice::from_ref(package)).await?;
            let blob = workshop.cache().blob(&package.sha256).with_context(|| {
                format!("{} is damaged in the cache; build again", package.name)
            })?;
            step.note("unpacking");
            let tools = workshop.tools().await?;
            let tree = out.join("tree");
            let run = async |program: &str, arguments: &[&Path]| {
                let output = tools.command(program)?.args(arguments).output().await?;
                ensure!(
                    output.status.success(),
                    "{program} failed: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                anyhow::Ok(())
            };
            run("dpkg-deb", &["-x".as_ref(), &blob, &tree]).await?;
            let modules =
                only(&tree.join("usr/lib/modules")).or_else(|_| only(&tree.join("lib/modules")))?;
            let version = name(&modules)?;
            fs::create_dir_all(out.join("lib/modules"))?;
            fs::rename(&modules, out.join("lib/modules").join(&version))?;
            fs::rename(
                tree.join(format!("boot/vmlinuz-{version}")),
                out.join("vmlinuz"),
            )
            .context("the kernel package has no image")?;
            fs::remove_dir_all(&tree)?;
            step.note("depmod");
            run("depmod", &["-b".as_ref(), out, version.as_ref()]).await
        })
        .await?;
    let modules = only(&directory.join("lib/modules"))?;
    Ok(Kernel {
        image: directory.join("vmlinuz"),
        version: name(&modules)?,
        modules,
        key,
    })
}

/// A kernel module that a recipe brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Brought {
    /// Below the kernel's directory of modules.
    place: PathBuf,
    /// On the host.
    file: PathBuf,
}

/// The modules among what a recipe lays over, given as path in the image and file of the host, and the other
/// kernels that it brings modules for: a recipe may be for several.
///
/// # Errors
/// There are modules, and none is for this kernel.
pub(super) fn brought(
    files: &[(String, PathBuf)],
    kernel: &str,
) -> Result<(Vec<Brought>, BTreeSet<String>)> {
    let mut found = Vec::new();
    let mut others = BTreeSet::new();
    for (path, file) in files.iter().filter(|(path, _)| is_module(path)) {
        let path = path.trim_start_matches('/');
        let path = path.strip_prefix("usr/").unwrap_or(path);
        let Some((version, place)) = path
            .strip_prefix("lib/modules/")
            .and_then(|path| path.split_once('/'))
        else {
            continue;
        };
        if version == kernel {
            found.push(Brought {
                place: place.into(),
                file: file.clone(),
            });
        } else {
            others.insert(version.to_owned());
        }
    }
    ensure!(
        others.is_empty() || !found.is_empty(),
        "the modules that are laid over are for the kernel {}, and the image has {kernel}, which could not load them; \
         build them for that one, or pin the kernel with a lock",
        Vec::from_iter(others).join(" and ")
    );
    Ok((found, others))
}

/// The kernel with these modules among its own, and depmod run on all of them.
pub(super) async fn with_modules(
    workshop: &Workshop,
    kernel: Kernel,
    brought: &[Brought],
) -> Result<Kernel> {
    if brought.is_empty() {
        return Ok(kernel);
    }
    let mut key = KeyBuilder::new("kernel-modules-1").value("kernel", kernel.key.to_string());
    for module in brought {
        key = key
            .value("place", module.place.to_string_lossy().as_bytes())
            .file("module", &module.file)?;
    }
    let key = key.finish();
    let what = format!(
        "kernel {} with {} more modules",
        kernel.version,
        brought.len()
    );
    let directory = workshop
        .step("kernel", &what, &key, async |out: &Path, step| {
            let to = out.join("lib/modules").join(&kernel.version);
            step.note("copying");
            let (from, modules) = (kernel.modules.clone(), to.clone());
            tokio::task::spawn_blocking(move || copy(&from, &modules)).await??;
            for module in brought {
                let to = to.join(&module.place);
                let what = || format!("copying {} to {}", module.file.display(), to.display());
                fs::create_dir_all(to.parent().unwrap_or(&to)).with_context(what)?;
                // What it replaces is the other entry's, too.
                let _ = fs::remove_file(&to);
                fs::copy(&module.file, &to).with_context(what)?;
            }
            step.note("depmod");
            let mut depmod = workshop.tools().await?.command("depmod")?;
            depmod.arg("-b").arg(out).arg(&kernel.version);
            run("depmod", &mut depmod).await.map(|_| ())
        })
        .await?;
    Ok(Kernel {
        modules: directory.join("lib/modules").join(&kernel.version),
        key,
        ..kernel
    })
}

/// Modules as links to those of the other entry, which nobody changes; what depmod writes as files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copying {} to {}", from.display(), to.display());
    fs::create_dir_all(to).with_context(what)?;
    for entry in fs::read_dir(from).with_context(what)? {
        let entry = entry.with_context(what)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().with_context(what)?.is_dir() {
            copy(&path, &target)?;
        } else if !is_module(&path.to_string_lossy()) || fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).with_context(what)?;
        }
    }
    Ok(())
}

/// Looks whether what would be loaded is what is in the image, by depmod's list, which has each module's name once.
/// A module below `updates/` is taken in place of any other (depmod.d(5), `search`).
///
/// # Errors
/// depmod did not see a module, or there are two of a name of which it took either.
pub(super) fn check(tree: &Tree, kernel: &Kernel) -> Result<()> {
    let path = kernel.modules.join("modules.dep");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let listed: BTreeMap<String, &str> = text
        .lines()
        .filter_map(|line| line.split(':').next())
        .map(|path| (module_name(path), path))
        .collect();
    let directory = format!("usr/lib/modules/{}/", kernel.version);
    let is_update = |place: &str| place.starts_with("updates/");
    let mut unseen = Vec::new();
    for path in tree.below(&directory) {
        let Some(place) = path.strip_prefix(&directory).filter(|it| is_module(it)) else {
            continue;
        };
        let name = module_name(place);
        match listed.get(&name).copied() {
            Some(taken) if taken == place => {}
            Some(taken) if kernel.modules.join(place).exists() => ensure!(
                is_update(taken)
                    && !is_update(place)
                    && tree.get(&format!("{directory}{taken}")).is_some(),
                "/{directory}{taken} and /{path} are both the module {name}, and which of the two depmod takes is by \
                 chance; lay yours over below /{directory}updates/, or leave it away"
            ),
            _ => unseen.push(path),
        }
    }
    ensure!(
        unseen.is_empty(),
        "a package brings kernel modules that depmod did not see, so that nothing would load them: {}; \
         take them out of the package and lay them over, as [[files]]",
        unseen.join(", ")
    );
    Ok(())
}

fn is_module(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    ["", ".xz", ".zst", ".gz"]
        .iter()
        .any(|packed| name.ends_with(&format!(".ko{packed}")))
}

/// The only thing in a directory.
fn only(directory: &Path) -> Result<PathBuf> {
    let mut entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let entry = entries
        .next()
        .with_context(|| format!("{} is empty", directory.display()))??;
    ensure!(
        entries.next().is_none(),
        "{} holds more than one kernel",
        directory.display()
    );
    Ok(entry.path())
}

fn name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.context("a kernel version is not UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tree::{Bytes, Entry, Node};

    #[test]
    fn modules_that_a_recipe_brings_are_those_of_its_kernel() {
        let files = |paths: &[&str]| -> Vec<(String, PathBuf)> {
            let pair = |path: &&str| ((*path).to_owned(), PathBuf::from("/host"));
            paths.iter().map(pair).collect()
        };
        let (found, others) = brought(
            &files(&[
                "/usr/lib/modules/6.12/updates/a.ko",
                "/lib/modules/6.12/b.ko.xz",
                "/usr/lib/modules/6.12/notes.txt",
                "/usr/lib/modules/6.12-cloud/updates/a.ko",
                "/opt/c.ko",
            ]),
            "6.12",
        )
        .unwrap();
        let places: Vec<_> = found
            .iter()
            .map(|module| module.place.to_str().unwrap())
            .collect();
        assert_eq!(places, ["updates/a.ko", "b.ko.xz"]);
        assert_eq!(Vec::from_iter(others), ["6.12-cloud"]);
        let error = brought(&files(&["/lib/modules/6.1/extra/a.ko"]), "6.12").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("6.1,") && error.contains("lock"), "{error}");
    }

    /// What is said of a kernel with these modules of which depmod lists some, in a root with some.
    fn checked(seen: &[&str], listed: &str, there: &[&str]) -> Result<()> {
        let directory = tempfile::tempdir().unwrap();
        for path in seen {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::write(directory.path().join("modules.dep"), listed).unwrap();
        let kernel = Kernel {
            key: KeyBuilder::new("test").finish(),
            image: PathBuf::new(),
            version: "6.12".to_owned(),
            modules: directory.path().to_owned(),
        };
        let mut tree = Tree::default();
        for path in there {
            let node = Node::File(Bytes::Memory(b"x".as_slice().into()));
            let path = format!("usr/lib/modules/6.12/{path}");
            tree.insert(&path, Entry::new(node, 0o644));
        }
        check(&tree, &kernel)
    }

    #[test]
    fn what_depmod_did_not_see_is_noticed() {
        let (a, b) = ("kernel/a-b.ko.xz", "kernel/b.ko.xz");
        let listed = format!("{a}:\n{b}: {a}\n");
        checked(&[a, b], &listed, &[a, "modules.dep", "../6.1/d.ko"]).unwrap();
        for unseen in ["updates/c.ko", "updates/a_b.ko"] {
            let error = checked(&[a, b], &listed, &[a, unseen]).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains(&format!("usr/lib/modules/6.12/{unseen};")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_module_takes_the_place_of_another_from_updates_alone() {
        let (old, new) = ("kernel/net/igb.ko.xz", "updates/igb.ko");
        checked(&[old, new], "updates/igb.ko:\n", &[old, new]).unwrap();
        for (one, other) in [
            (old, "extra/igb.ko"),
            ("extra/igb.ko", old),
            (new, "updates/dkms/igb.ko"),
        ] {
            let error = checked(&[one, other], &format!("{one}:\n"), &[one, other]);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(one) && error.contains(other) && error.contains("by chance"),
                "{error}"
            );
        }
        // What is left out cannot be taken.
        let error = checked(&[old, new], "updates/igb.ko:\n", &[old]).unwrap_err();
        assert!(error.to_string().contains("by chance"), "{error}");
        checked(&[old, new], "updates/igb.ko:\n", &[new]).unwrap();
    }

    #[test]
    fn modules_are_linked_and_what_depmod_writes_is_copied() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("kernel")).unwrap();
        fs::write(from.join("kernel/a.ko"), "a").unwrap();
        fs::write(from.join("modules.dep"), "dep").unwrap();
        copy(&from, &to).unwrap();
        let links = |path: &str| to.join(path).metadata().unwrap().nlink();
        assert_eq!((links("kernel/a.ko"), links("modules.dep")), (2, 1));
    }
}
