//! CPU microcode: kernels take it from an archive before the initramfs (Documentation/arch/x86/microcode.rst).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::boot::initramfs::Archive;
use crate::root::tree::{Node, Tree};
use crate::workshop::Workshop;
use crate::workshop::cache::KeyBuilder;

use super::base::Base;

/// Where packages put microcode, and what the kernel looks for.
const VENDORS: [(&str, &str); 2] = [
    (
        "usr/lib/firmware/intel-ucode",
        "kernel/x86/microcode/GenuineIntel.bin",
    ),
    (
        "usr/lib/firmware/amd-ucode",
        "kernel/x86/microcode/AuthenticAMD.bin",
    ),
];

/// The archive of all microcode in the packages, if there is any.
pub(super) async fn collect(workshop: &Workshop, base: &Base) -> Result<Option<PathBuf>> {
    let key = KeyBuilder::new("microcode-1")
        .value("base", base.key())
        .finish();
    let made = workshop
        .step("microcode", "CPU microcode", &key, async |out: &Path, _| {
            let mut tree = Tree::default();
            tree.read_tar(base.archive())?;
            fs::write(out.join("microcode.cpio"), archive(&tree)?)?;
            Ok(())
        })
        .await?;
    let path = made.join("microcode.cpio");
    Ok((path.metadata()?.len() > 0).then_some(path))
}

/// The kernel takes any number of updates one after the other in one file.
fn archive(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let mut any = false;
    for directory in ["kernel", "kernel/x86", "kernel/x86/microcode"] {
        archive.directory(directory)?;
    }
    for (directory, name) in VENDORS {
        let mut updates = Vec::new();
        for path in tree.below(directory) {
            if let Some(Node::File(bytes)) = tree.get(&path).map(|entry| &entry.node)
                && !path.ends_with(".asc")
                && !path.ends_with("README")
            {
                updates.extend(bytes.read()?);
            }
        }
        if !updates.is_empty() {
            archive.file(name, 0o644, &updates)?;
            any = true;
        }
    }
    if any {
        archive.finish()
    } else {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::tree::{Bytes, Entry};

    #[test]
    fn updates_of_a_vendor_become_one_file() {
        let mut tree = Tree::default();
        assert!(archive(&tree).unwrap().is_empty());
        for (path, content) in [
            ("usr/lib/firmware/intel-ucode/06-01", "one."),
            ("usr/lib/firmware/intel-ucode/06-02", "two."),
            ("usr/lib/firmware/amd-ucode/microcode_amd.bin", "amd."),
            (
                "usr/lib/firmware/amd-ucode/microcode_amd.bin.asc",
                "signature",
            ),
        ] {
            let node = Node::File(Bytes::Memory(content.as_bytes().into()));
            tree.insert(path, Entry::new(node, 0o644));
        }
        let archive = archive(&tree).unwrap();
        let has = |text: &str| {
            archive
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(has("one.two.") && has("GenuineIntel.bin") && has("AuthenticAMD.bin"));
        assert!(!has("signature"));
    }
}
