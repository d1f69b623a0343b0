//! Roots of an architecture that this host does not run.
//!
//! Maintainer scripts under an emulator take minutes (most of it for starting processes), and need
//! a kernel that is set up for it. But what they do (users, alternatives, certificates, enabled
//! units) is the same on every architecture. So the same packages are configured natively, and
//! what that changed is carried over:
//!
//! ```text
//!   native packages, unpacked  ──┐
//!   native packages, configured ─┴─► difference ──► foreign packages, unpacked ──► foreign root
//! ```
//!
//! What must not be carried over is noticed, not guessed: a program or library that configuring
//! made or changed is an error, and so is a foreign package with a maintainer script that the
//! native set does not have. What is made for one architecture only, and again at need, is left
//! out ([`LEFT_OUT`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Architecture;
use crate::debian::archive;
use crate::debian::lock::Package;
use crate::root::tree::{Node, Tree};
use crate::workshop::Workshop;
use crate::workshop::cache::{Key, KeyBuilder};

/// Names this way of doing it, for keys.
pub(super) const VERSION: &str = "transplant-2";

/// Made by scripts for one architecture: caches that programs do without.
const LEFT_OUT: [&str; 4] = [
    "etc/ld.so.cache",
    "var/lib/dpkg",
    "var/cache",
    "gconv/gconv-modules.cache",
];

/// The packages of an architecture, unpacked over each other.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    pub(super) key: Key,
    pub(super) archive: PathBuf,
}

/// Unpacks packages, without those in `discard`.
pub(super) async fn unpacked(
    workshop: &Workshop,
    architecture: Architecture,
    packages: &[Package],
    discard: &[String],
) -> Result<Unpacked> {
    let wanted: Vec<Package> = packages
        .iter()
        .filter(|package| !discard.contains(&package.name))
        .cloned()
        .collect();
    let mut key = KeyBuilder::new("unpacked-1");
    for package in &wanted {
        key = key.value(&package.name, &package.sha256);
    }
    let key = key.finish();
    let what = format!("unpacking packages for {architecture}");
    let directory = workshop
        .step("unpacked", &what, &key, async |out: &Path, step| {
            archive::fetch(workshop, architecture.name(), &wanted).await?;
            step.note("unpacking");
            let scratch = workshop.cache().scratch()?;
            unpack(workshop, &wanted, scratch.path()).await?;
            let archives: Vec<_> = wanted
                .iter()
                .map(|package| scratch.path().join(&package.sha256))
                .collect();
            let output = out.join("root.tar");
            tokio::task::spawn_blocking(move || {
                let mut tree = Tree::default();
                for archive in archives {
                    tree.read_tar(&archive)?;
                }
                tree.write_tar(std::io::BufWriter::new(fs::File::create(&output)?), 0)
            })
            .await??;
            drop(scratch);
            Ok(())
        })
        .await?;
    Ok(Unpacked {
        key,
        archive: directory.join("root.tar"),
    })
}

/// Writes the files of each package as an archive named by its hash.
async fn unpack(workshop: &Workshop, packages: &[Package], directory: &Path) -> Result<()> {
    const SCRIPT: &str = "printf '%s\\n' \"$@\" | xargs -P \"$(nproc)\" -I{} \
        sh -c 'dpkg-deb --fsys-tarfile \"$BLOBS/{}\" > {}'";
    for package in packages {
        workshop
            .cache()
            .blob(&package.sha256)
            .with_context(|| format!("{} is damaged in the cache; build again", package.name))?;
    }
    let status = workshop
        .tools()
        .await?
        .command_in(directory, "sh")?
        .env("BLOBS", workshop.cache().path().join("blobs"))
        .args(["-c", SCRIPT, "sh"])
        .args(packages.iter().map(|package| &package.sha256))
        .status()
        .await?;
    ensure!(status.success(), "a package cannot be unpacked");
    Ok(())
}

/// Refuses foreign packages with scripts that nothing native stands in for.
pub(super) async fn check(
    workshop: &Workshop,
    native: &[Package],
    foreign: &[Package],
) -> Result<()> {
    let names: BTreeSet<&str> = native.iter().map(|package| package.name.as_str()).collect();
    let alone = foreign.iter().filter(|p| !names.contains(p.name.as_str()));
    let alone: Vec<Package> = alone.cloned().collect();
    // What they were unpacked to may be kept for longer than they are.
    archive::fetch(workshop, "maintainer scripts", &alone).await?;
    for package in &alone {
        let path = workshop.cache().blob_path(&package.sha256);
        let output = workshop
            .tools()
            .await?
            .command("dpkg-deb")?
            .arg("--ctrl-tarfile")
            .arg(&path)
            .output()
            .await?;
        let mut archive = tar::Archive::new(output.stdout.as_slice());
        for entry in archive.entries()? {
            let name = entry?.path()?.to_string_lossy().into_owned();
            if name.trim_start_matches("./") == "postinst" {
                bail!(
                    "the package {} is installed for {} alone and has a maintainer script, which \
                     cannot be run on this host; build on a machine of that architecture, or name \
                     the package for both",
                    package.name,
                    package.architecture
                );
            }
        }
    }
    Ok(())
}

/// Does to `target` what turned `before` into `configured`.
pub(super) fn carry_over(configured: &Tree, before: &Tree, mut target: Tree) -> Result<Tree> {
    let left_out = |name: &str| {
        LEFT_OUT.iter().any(|path| {
            name == *path || name.starts_with(&format!("{path}/")) || name.ends_with(path)
        })
    };
    for (name, _) in before.iter() {
        if configured.get(name).is_none() && !left_out(name) {
            target.remove(name);
        }
    }
    for (name, entry) in configured.iter().filter(|(name, _)| !left_out(name)) {
        match before.get(name) {
            Some(old) if same_content(&old.node, &entry.node)? => {
                if !old.same_metadata(entry)
                    && let Some(there) = target.get_mut(name)
                {
                    there.mode = entry.mode;
                    there.uid = entry.uid;
                    there.gid = entry.gid;
                    there.attributes = entry.attributes.clone();
                }
            }
            old => {
                if let Node::File(content) = &entry.node {
                    let start = content.read()?;
                    ensure!(
                        !start.starts_with(b"\x7fELF"),
                        "configuring the packages {} the program {name}, which is of this host's \
                         architecture; build on a machine of the image's architecture",
                        if old.is_some() { "changed" } else { "made" }
                    );
                }
                target.insert(name, entry.clone());
            }
        }
    }
    Ok(target)
}

fn same_content(a: &Node, b: &Node) -> Result<bool> {
    Ok(match (a, b) {
        (Node::File(a), Node::File(b)) => a.length() == b.length() && a.read()? == b.read()?,
        (Node::Symlink(a), Node::Symlink(b)) => a == b,
        (Node::Directory, Node::Directory) => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tree::{Bytes, Entry};

    fn tree(files: &[(&str, &str, u32)]) -> Tree {
        let mut tree = Tree::default();
        for (path, content, mode) in files {
            let node = Node::File(Bytes::Memory(content.as_bytes().into()));
            tree.insert(path, Entry::new(node, *mode));
        }
        tree
    }

    #[test]
    fn what_scripts_did_is_done_again() {
        let before = tree(&[
            ("usr/bin/ping", "\x7fELF native", 0o755),
            ("usr/lib/helper", "\x7fELF native", 0o755),
            ("etc/kept", "kept", 0o644),
            ("etc/dropped", "dropped", 0o644),
        ]);
        let configured = tree(&[
            ("usr/bin/ping", "\x7fELF native", 0o4755),
            ("usr/lib/helper", "\x7fELF native", 0o755),
            ("etc/kept", "changed", 0o644),
            ("etc/passwd", "root", 0o644),
            ("etc/ld.so.cache", "native", 0o644),
        ]);
        let after = tree(&[
            ("usr/bin/ping", "\x7fELF foreign", 0o755),
            ("usr/lib/helper", "\x7fELF foreign", 0o755),
            ("etc/kept", "kept", 0o644),
            ("etc/dropped", "dropped", 0o644),
        ]);
        let result = carry_over(&configured, &before, after).unwrap();
        let content = |path: &str| match &result.get(path).unwrap().node {
            Node::File(bytes) => String::from_utf8(bytes.read().unwrap()).unwrap(),
            _ => panic!("{path}"),
        };
        assert_eq!(content("usr/bin/ping"), "\x7fELF foreign");
        assert_eq!(result.get("usr/bin/ping").unwrap().mode, 0o4755);
        assert_eq!(content("etc/kept"), "changed");
        assert_eq!(content("etc/passwd"), "root");
        assert!(result.get("etc/dropped").is_none());
        assert!(result.get("etc/ld.so.cache").is_none());
    }

    #[test]
    fn a_program_made_by_a_script_is_refused() {
        let configured = tree(&[("usr/bin/made", "\x7fELF native", 0o755)]);
        let error = carry_over(&configured, &Tree::default(), Tree::default()).unwrap_err();
        assert!(error.to_string().contains("usr/bin/made"), "{error}");
    }
}
