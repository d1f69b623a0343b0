//! The verity tree: docs/formats/verity.md.
//!
//! Built as leaves come, in any portions, it is the tree that a few plain lines make; and a changed block is noticed
//! where it is.
#![no_main]

use boot_core::types::Salt;
use boot_core::verity::{BlockHasher, Geometry, HASH, TreeBuilder};
use libfuzzer_sys::fuzz_target;

/// Levels of hashes, the leaves' first, each padded to whole blocks; and the root hash.
fn plainly(hasher: &BlockHasher, leaves: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut levels, mut hashes) = (Vec::new(), leaves.to_vec());
    while hashes.len() > HASH {
        let mut level = hashes;
        level.resize(level.len().next_multiple_of(4096), 0);
        hashes = level
            .chunks(4096)
            .flat_map(|block| hasher.hash(block))
            .collect();
        levels.push(level);
    }
    (levels, hashes)
}

fuzz_target!(|data: &[u8]| {
    let Some(([low, high, salt, step], data)) = data.split_first_chunk() else {
        return;
    };
    // Rarely more than one block of leaves, at times more than one of those above.
    let many = usize::from(u16::from_le_bytes([*low, *high])) % 17000;
    let count = if data.len().is_multiple_of(16) {
        many
    } else {
        many % 300
    };
    let salt = Salt([*salt; 32]);
    let hasher = BlockHasher::new(&salt);
    let leaf = |index: usize| {
        let mut leaf = [0; HASH];
        leaf[..8].copy_from_slice(&(index as u64).to_le_bytes());
        leaf[8] = data.get(index % data.len().max(1)).copied().unwrap_or(0);
        leaf
    };
    let leaves: Vec<u8> = (0..count).flat_map(leaf).collect();
    let mut builder = TreeBuilder::new(&salt);
    for part in leaves.chunks((usize::from(*step) + 1) * HASH) {
        builder.push(part);
    }
    let Some(tree) = builder.finish() else {
        assert_eq!(count, 0);
        return;
    };
    let (levels, root) = plainly(&hasher, &leaves);
    assert_eq!(tree.root.0, root[..]);
    let expected: Vec<u8> = levels.iter().rev().flatten().copied().collect();
    let bytes = tree.to_bytes(&leaves);
    assert!(bytes == expected, "the tree lies otherwise");
    let geometry = Geometry::new(count as u64).expect("there are blocks");
    let total = (count * 4096 + bytes.len()) as u64;
    assert_eq!(geometry.total_size(), Some(total));
    if let Some(at) = geometry.leaves_offset() {
        let at = at as usize - count * 4096;
        assert!(bytes[at..].starts_with(&leaves));
    }

    let blocks = vec![*step; (count % 5 + 1) * 4096];
    let mut run = Vec::new();
    hasher.append_leaves(&blocks, &mut run);
    assert_eq!(hasher.check_run(&run, &blocks), Ok(()));
    let block = usize::from(*low) % (run.len() / HASH);
    run[block * HASH + usize::from(*high) % HASH] ^= 1;
    let found = hasher.check_run(&run, &blocks).map_err(|it| it.block);
    assert_eq!(found, Err(block as u64));
});
