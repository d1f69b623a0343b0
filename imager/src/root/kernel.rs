//! The kernel: unpacked, never installed, because its scripts would build an initramfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::debian::archive;
use crate::debian::lock::Package;
use crate::workshop::Workshop;
use crate::workshop::cache::{Key, KeyBuilder};

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
