//! Reads the whole root of a slot against its verity leaves, past dm-verity and the page cache.

use block_file::Access;
use boot_core::manifest::Root;
use boot_core::slot_header::read_slot;
use boot_core::verity::{BLOCK, BlockHasher, Geometry, HASH, TreeBuilder};
use boot_core::{Device, Slot};

use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;

/// In the text of every failure that means: the root is not what was signed.
pub const MISMATCH: &str = "the root is damaged";

/// Hash blocks at a time, and the data blocks that they are about.
const LEAF_BLOCKS: u64 = 8;

/// Reads the root of a slot whose manifest the loader has verified, at this start or at one before.
pub fn of_slot(machine: &Machine, slot: Slot) -> Result<()> {
    let mut boot = machine.open(slot.label_boot(), Access::Read)?;
    let mut root = machine.open(slot.label_root(), Access::Read)?;
    of(&mut boot, &mut root)
}

/// Reads the root in `root` against the manifest in `boot`.
///
/// # Errors
/// As [`check`]; or the manifest cannot be read.
pub fn of<D: Device>(boot: &mut D, root: &mut D) -> Result<()> {
    let parts = read_slot(boot)
        .map_err(|e| Failure::failed(e).doing("reading the manifest beside the root"))?;
    let (manifest, _) = parts.manifest_unverified().map_err(Failure::of)?;
    match manifest.root {
        Some(it) => check(root, &it),
        None => Ok(()),
    }
}

/// Compares data with leaves, leaves with the root hash, and the rest of the tree with what follows from the leaves:
/// whatever the kernel hashes is looked at, so that it never stops at a block that was found sound here.
///
/// # Errors
/// [`crate::failure::Code::Verification`] at the first block that differs.
pub fn check<D: Device>(device: &mut D, root: &Root) -> Result<()> {
    damage_that_stays(|| compare(device, root))
}

/// Damage is what stays. A bus or memory may err once, and a good slot is given up for what is found here: whatever is
/// wrong is read once more.
pub(super) fn damage_that_stays<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    match read() {
        Err(e) if e.code == Code::Verification => read().inspect(|_| {
            eprintln!("bootctl: {e}; not so when it was read once more");
        }),
        sound => sound,
    }
}

fn compare<D: Device>(device: &mut D, root: &Root) -> Result<()> {
    let unreadable = |e: D::Error| Failure::verification(format!("{MISMATCH}: {e}"));
    let (Some(geometry), hasher) = (
        Geometry::new(root.data_blocks()),
        BlockHasher::new(&root.salt),
    ) else {
        return Err(Failure::failed("the manifest's root is empty"));
    };
    let mut builder = TreeBuilder::new(&root.salt);
    let mut data = vec![0; (LEAF_BLOCKS * 128 * BLOCK) as usize];
    let mut leaves = vec![0; (LEAF_BLOCKS * BLOCK) as usize];
    let mut first = 0;
    while first < root.data_blocks() {
        let blocks = (LEAF_BLOCKS * 128).min(root.data_blocks() - first);
        let data = &mut data[..(blocks * BLOCK) as usize];
        device.read_at(first * BLOCK, data).map_err(unreadable)?;
        if let Some(offset) = geometry.leaves_offset() {
            let length = (blocks as usize * HASH).next_multiple_of(BLOCK as usize);
            device
                .read_at(offset + first * HASH as u64, &mut leaves[..length])
                .map_err(unreadable)?;
            let (leaves, padding) = leaves[..length].split_at(blocks as usize * HASH);
            if padding.iter().any(|byte| *byte != 0) {
                return Err(tree_differs());
            }
            hasher.check_run(leaves, data).map_err(|m| {
                Failure::verification(format!(
                    "{MISMATCH}: block {} is not what was signed",
                    first + m.block
                ))
            })?;
            builder.push(leaves);
        } else {
            builder.push(&hasher.hash(data));
        }
        first += blocks;
    }
    let tree = builder
        .finish()
        .filter(|tree| tree.root == root.hash)
        .ok_or_else(tree_differs)?;
    let mut upper = vec![0; tree.upper.len()];
    device
        .read_at(root.data_blocks() * BLOCK, &mut upper)
        .map_err(unreadable)?;
    if upper == tree.upper {
        Ok(())
    } else {
        Err(tree_differs())
    }
}

fn tree_differs() -> Failure {
    Failure::verification(format!(
        "{MISMATCH}: its verity tree is not the one that was signed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_core::test_support::MemoryDevice;
    use boot_core::types::Salt;

    #[test]
    fn finds_a_flipped_bit_in_data_and_tree() {
        let blocks = 1500_u64;
        let salt = Salt([7; 32]);
        let data: Vec<u8> = (0..blocks * BLOCK).map(|i| (i / 97) as u8).collect();
        let mut leaves = Vec::new();
        BlockHasher::new(&salt).append_leaves(&data, &mut leaves);
        let mut builder = TreeBuilder::new(&salt);
        builder.push(&leaves);
        let tree = builder.finish().unwrap();
        let mut bytes = data.clone();
        bytes.extend_from_slice(&tree.to_bytes(&leaves));
        let root = Root {
            hash: tree.root,
            salt,
            data_size: blocks * BLOCK,
            size: bytes.len() as u64,
            chunk_size: 4 << 20,
        };
        let mut device = MemoryDevice::new(bytes.len() as u64, 512);
        device.bytes.copy_from_slice(&bytes);
        check(&mut device, &root).unwrap();
        // Data, the level above the leaves (first block of the tree), a leaf, the padding after the last leaf.
        let tree_at = data.len();
        for at in [
            5,
            tree_at - 1,
            tree_at + 9,
            tree_at + 4000,
            bytes.len() - 3000,
            bytes.len() - 1,
        ] {
            device.bytes[at] ^= 1;
            let e = check(&mut device, &root).unwrap_err();
            assert!(e.what.starts_with(MISMATCH), "{e}");
            device.bytes[at] ^= 1;
        }
        device.passing_errors = 1;
        check(&mut device, &root).unwrap();
        assert_eq!(device.passing_errors, 0);
        device.bad_reads = Some(0..512);
        assert!(
            check(&mut device, &root)
                .unwrap_err()
                .what
                .starts_with(MISMATCH)
        );
    }
}
