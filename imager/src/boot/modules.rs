//! Which kernel modules go into an initramfs.
//!
//! `recipes/initramfs/modules.toml` names them once for every kernel; depmod's output says which of
//! them this kernel has, what each depends on and which devices it answers to. The result is the
//! agent's `modules.json`: a small index of only what is in the archive, so that the agent needs
//! neither depmod's files nor a modprobe.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::workshop::tool::run;
use crate::workshop::tools::Tools;

/// `modules.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleList {
    /// Loaded at every boot, in this order.
    pub always: Vec<String>,
    /// Hardware watchdogs, loaded first where the machine has one.
    #[serde(default)]
    pub watchdog: Vec<String>,
    /// Loaded where the machine has the device.
    pub storage: Vec<String>,
    /// Added to `always` in a recovery system.
    #[serde(default)]
    pub recovery: Vec<String>,
}

impl ModuleList {
    /// Reads the list.
    ///
    /// # Errors
    /// The file is not there or is not what the type says.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("reading the module list {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("reading the module list {}", path.display()))
    }
}

#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Index {
    pub kernel: String,
    /// Loaded at every boot, in this order.
    pub always: Vec<String>,
    /// Watchdogs, in the order in which they are tried.
    pub watchdog: Vec<String>,
    /// Direct and indirect needs of each module, to be loaded before it, in this order.
    pub depends: BTreeMap<String, Vec<String>>,
    /// Pattern and module.
    pub aliases: Vec<(String, String)>,
}

/// The modules chosen: their files, and the index.
#[derive(Debug)]
pub struct Selection {
    /// Name and file, sorted by name.
    pub files: Vec<(String, PathBuf)>,
    pub index: Index,
}

/// depmod's output for one kernel.
struct Depmod {
    directory: PathBuf,
    /// Name → (file, relative to the directory; what it needs, as depmod orders it).
    modules: BTreeMap<String, (String, Vec<String>)>,
    aliases: Vec<(String, String)>,
}

impl Depmod {
    fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path)
                .with_context(|| format!("reading depmod's {}", path.display()))
        };
        let mut modules = BTreeMap::new();
        for line in read("modules.dep")?.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                bail!(
                    "{}/modules.dep: not a dependency: {line}",
                    directory.display()
                );
            };
            let needs = needs.split_whitespace().map(module_name).collect();
            modules.insert(module_name(file), (file.to_owned(), needs));
        }
        let aliases = read("modules.alias")?
            .lines()
            .filter_map(|line| {
                let mut words = line.strip_prefix("alias ")?.rsplitn(2, ' ');
                let module = words.next()?;
                Some((words.next()?.to_owned(), module.replace('-', "_")))
            })
            .collect();
        Ok(Self {
            directory: directory.to_owned(),
            modules,
            aliases,
        })
    }
}

/// `kernel/drivers/md/dm-mod.ko.xz` → `dm_mod`.
pub(crate) fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

/// Chooses from the kernel whose modules lie in `directory` (the one that holds modules.dep).
///
/// # Errors
/// depmod's files are not there, or name a module that is not.
pub fn select(
    list: &ModuleList,
    directory: &Path,
    kernel: &str,
    recovery: bool,
) -> Result<Selection> {
    let depmod = Depmod::read(directory)?;
    let here = |names: &[String]| -> Vec<String> {
        names
            .iter()
            .filter(|name| depmod.modules.contains_key(*name))
            .cloned()
            .collect()
    };
    let mut always = here(&list.always);
    if recovery {
        always.extend(here(&list.recovery));
    }
    let watchdog = here(&list.watchdog);
    let mut chosen = BTreeSet::new();
    let mut pending: Vec<String> = here(&list.storage);
    pending.extend(always.iter().chain(&watchdog).cloned());
    while let Some(name) = pending.pop() {
        let Some((_, needs)) = depmod.modules.get(&name) else {
            bail!(
                "{}/modules.dep: {name} is needed and not there",
                directory.display()
            );
        };
        if chosen.insert(name) {
            pending.extend(needs.iter().cloned());
        }
    }
    let mut files = Vec::new();
    let mut depends = BTreeMap::new();
    for name in &chosen {
        let Some((file, needs)) = depmod.modules.get(name) else {
            continue;
        };
        files.push((name.clone(), depmod.directory.join(file)));
        if !needs.is_empty() {
            // depmod lists the nearest need first; loading goes the other way.
            depends.insert(name.clone(), needs.iter().rev().cloned().collect());
        }
    }
    let mut aliases: Vec<_> = depmod
        .aliases
        .into_iter()
        .filter(|(pattern, module)| chosen.contains(module) && is_device_alias(pattern))
        .collect();
    aliases.sort();
    aliases.dedup();
    Ok(Selection {
        files,
        index: Index {
            kernel: kernel.to_owned(),
            always,
            watchdog,
            depends,
            aliases,
        },
    })
}

/// Reads chosen modules, unpacking those that are packed.
///
/// # Errors
/// A file cannot be read, or is packed in a way that is not known.
pub async fn read(tools: &Tools, files: &[(String, PathBuf)]) -> Result<Vec<(String, Vec<u8>)>> {
    let work = tempfile::tempdir().context("making a directory for kernel modules")?;
    let mut packed = Vec::new();
    for (name, path) in files.iter().filter(|(_, path)| has_extension(path, "xz")) {
        let copy = work.path().join(format!("{name}.ko.xz"));
        fs::copy(path, &copy).with_context(|| format!("copying {}", path.display()))?;
        packed.push(copy);
    }
    if !packed.is_empty() {
        run(
            "unpacking kernel modules",
            tools.command("xz")?.arg("-d").args(&packed),
        )
        .await?;
    }
    let mut modules = Vec::new();
    for (name, path) in files {
        let what = || format!("reading the kernel module {}", path.display());
        let bytes = if has_extension(path, "xz") {
            fs::read(work.path().join(format!("{name}.ko"))).with_context(what)?
        } else if has_extension(path, "zst") {
            zstd::decode_all(fs::File::open(path).with_context(what)?).with_context(what)?
        } else {
            fs::read(path).with_context(what)?
        };
        ensure!(
            bytes.starts_with(b"\x7fELF"),
            "{} is not a kernel module",
            path.display()
        );
        modules.push((name.clone(), bytes));
    }
    Ok(modules)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// A device's modalias begins with its bus; filesystems, ciphers and symbols are asked for by name.
fn is_device_alias(pattern: &str) -> bool {
    pattern.contains(':') && !pattern.starts_with("symbol:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("modules.dep"),
            "kernel/drivers/md/dm-mod.ko.xz:\n\
             kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz\n\
             kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz\n\
             kernel/drivers/block/virtio_blk.ko.xz:\n\
             kernel/drivers/net/virtio_net.ko.xz:\n\
             kernel/drivers/block/loop.ko.xz:\n",
        )
        .unwrap();
        fs::write(
            dir.path().join("modules.alias"),
            "# Aliases\nalias virtio:d00000002v* virtio_blk\nalias virtio:d00000001v* virtio_net\n\
             alias devname:loop-control loop\nalias dm-verity-x dm_verity\n",
        )
        .unwrap();
        dir
    }

    fn list() -> ModuleList {
        toml::from_str(
            "always = [\"dm_verity\", \"absent\"]\nstorage = [\"virtio_blk\", \"nvme\"]\nrecovery = [\"loop\"]\n",
        )
        .unwrap()
    }

    #[test]
    fn needs_come_along_and_what_the_kernel_lacks_is_left_out() {
        let dir = kernel();
        let chosen = select(&list(), dir.path(), "6.12", false).unwrap();
        let names: Vec<_> = chosen.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["dm_bufio", "dm_mod", "dm_verity", "virtio_blk"]);
        assert_eq!(chosen.index.always, ["dm_verity"]);
        assert_eq!(chosen.index.depends["dm_verity"], ["dm_mod", "dm_bufio"]);
        assert_eq!(
            chosen.index.aliases,
            [("virtio:d00000002v*".to_owned(), "virtio_blk".to_owned())]
        );
    }

    #[test]
    fn a_recovery_system_loads_more() {
        let dir = kernel();
        let chosen = select(&list(), dir.path(), "6.12", true).unwrap();
        assert_eq!(chosen.index.always, ["dm_verity", "loop"]);
    }

    #[test]
    fn a_need_that_is_missing_is_an_error() {
        let dir = kernel();
        fs::write(
            dir.path().join("modules.dep"),
            "a/dm-verity.ko: a/gone.ko\n",
        )
        .unwrap();
        let error = select(&list(), dir.path(), "6.12", false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
