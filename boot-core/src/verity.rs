//! The dm-verity tree of a root: SHA-256, 4096-byte blocks, format 1 (salt before block), no
//! superblock.
//!
//! ```text
//! data blocks │ root level (1 block) │ … │ level 1 │ level 0: the leaves, 128 a block
//! ```
//!
//! A leaf is the hash of one data block. Leaves come in (from a bundle, from a disk, from hashing);
//! [`TreeBuilder`] keeps the levels above them, 1/128 of their size. Source of the format: the kernel's
//! Documentation/admin-guide/device-mapper/verity.rst. Details: docs/formats/verity.md.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::{
    bytes::{disk_len, memory_len},
    types::{RootHash, Salt},
};

/// Bytes in a data block and in a hash block.
pub const BLOCK: u64 = 4096;

/// Bytes in a hash.
pub const HASH: usize = 32;

/// Hashes in a hash block.
pub const HASHES_PER_BLOCK: u64 = 128;

const BLOCK_LEN: usize = 4096;

/// Levels that 2^64 bytes of data could need.
const LEVELS_MAX: usize = 8;

/// How large a tree is and where its levels lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    data_blocks: u64,
    /// Blocks of each level, the leaves' first.
    levels: Vec<u64>,
}

impl Geometry {
    /// Of a tree over `data_blocks` blocks; none for no blocks, or more than 2^64 bytes of them.
    pub fn new(data_blocks: u64) -> Option<Self> {
        if data_blocks == 0 || data_blocks.checked_mul(BLOCK).is_none() {
            return None;
        }
        let mut levels = Vec::with_capacity(LEVELS_MAX);
        let mut blocks = data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(HASHES_PER_BLOCK);
            levels.push(blocks);
        }
        Some(Self {
            data_blocks,
            levels,
        })
    }

    /// Blocks of data.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// Blocks of the tree.
    pub fn tree_blocks(&self) -> u64 {
        self.levels
            .iter()
            .fold(0, |sum, blocks| sum.saturating_add(*blocks))
    }

    /// Bytes of data and tree.
    pub fn total_size(&self) -> Option<u64> {
        self.data_blocks
            .checked_add(self.tree_blocks())?
            .checked_mul(BLOCK)
    }

    /// Where the level of the leaves starts, in bytes from the start of the data; it is as long as the
    /// leaves are, padded with zeros to whole blocks. None if a single data block needs no level.
    pub fn leaves_offset(&self) -> Option<u64> {
        let leaves = self.levels.first()?;
        self.data_blocks
            .checked_add(self.tree_blocks())?
            .checked_sub(*leaves)?
            .checked_mul(BLOCK)
    }

    /// Bytes of the leaves, without padding.
    pub fn leaves_len(&self) -> u64 {
        self.data_blocks.saturating_mul(disk_len(HASH))
    }
}

/// Hashes blocks: SHA-256 over salt and block.
#[derive(Clone, Debug)]
pub struct BlockHasher(Sha256);

impl BlockHasher {
    /// With `salt` before each block.
    pub fn new(salt: &Salt) -> Self {
        Self(Sha256::new().chain_update(salt.0))
    }

    /// The hash of one block, which is 4096 bytes; a shorter one is padded with zeros.
    pub fn hash(&self, block: &[u8]) -> [u8; HASH] {
        let mut hasher = self.0.clone();
        hasher.update(block);
        if let Some(missing) = BLOCK_LEN.checked_sub(block.len()) {
            hasher.update([0; BLOCK_LEN].get(..missing).unwrap_or_default());
        }
        hasher.finalize().into()
    }

    /// Whether the blocks of `data` have the hashes in `leaves`.
    ///
    /// # Errors
    /// [`Mismatch`], at the first block that does not, or if the lengths do not belong together.
    pub fn check_run(&self, leaves: &[u8], data: &[u8]) -> Result<(), Mismatch> {
        let blocks = data.len().div_ceil(BLOCK_LEN);
        if leaves.len() != blocks.saturating_mul(HASH) {
            return Err(Mismatch {
                block: disk_len(blocks),
            });
        }
        let leaves = leaves.chunks_exact(HASH);
        for ((block, bytes), leaf) in (0..).zip(data.chunks(BLOCK_LEN)).zip(leaves) {
            if self.hash(bytes) != leaf {
                return Err(Mismatch { block });
            }
        }
        Ok(())
    }

    /// Appends the leaves of the blocks of `data` to `leaves`.
    pub fn append_leaves(&self, data: &[u8], leaves: &mut Vec<u8>) {
        for block in data.chunks(BLOCK_LEN) {
            leaves.extend_from_slice(&self.hash(block));
        }
    }
}

/// A block that is not what its leaf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {block} does not match its verity leaf")]
pub struct Mismatch {
    /// Index within the run.
    pub block: u64,
}

/// Builds the levels above the leaves, as the leaves come.
#[derive(Clone, Debug)]
pub struct TreeBuilder {
    hasher: BlockHasher,
    /// Per level, the leaves' first: the hash block that is being filled.
    filling: Vec<Vec<u8>>,
    /// Per level above the leaves: what is complete.
    complete: Vec<Vec<u8>>,
    leaves: u64,
    last_leaf: [u8; HASH],
}

/// A tree, built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The root hash.
    pub root: RootHash,
    /// The levels above the leaves, as they lie on the disk right after the data: root level first.
    /// The leaves follow, padded with zeros to whole blocks.
    pub upper: Vec<u8>,
    /// How many leaves went in.
    pub data_blocks: u64,
}

impl TreeBuilder {
    /// Of a tree with `salt`.
    pub fn new(salt: &Salt) -> Self {
        Self {
            hasher: BlockHasher::new(salt),
            filling: Vec::new(),
            complete: Vec::new(),
            leaves: 0,
            last_leaf: [0; HASH],
        }
    }

    /// Takes the next leaves; `leaves` is a multiple of 32 bytes long.
    pub fn push(&mut self, leaves: &[u8]) {
        for leaf in leaves.chunks_exact(HASH) {
            self.last_leaf = leaf.first_chunk().copied().unwrap_or_default();
            self.leaves = self.leaves.saturating_add(1);
            self.add(0, self.last_leaf);
        }
    }

    /// Adds a hash to a level, and what that completes to the levels above.
    fn add(&mut self, mut level: usize, mut hash: [u8; HASH]) {
        loop {
            while self.filling.len() <= level {
                self.filling.push(Vec::new());
                self.complete.push(Vec::new());
            }
            let Some(block) = self.filling.get_mut(level) else {
                return;
            };
            block.extend_from_slice(&hash);
            if block.len() < BLOCK_LEN {
                return;
            }
            hash = self.close(level);
            level = level.saturating_add(1);
        }
    }

    /// Pads and hashes the block being filled at `level`, and keeps it unless it holds leaves.
    fn close(&mut self, level: usize) -> [u8; HASH] {
        let mut block = self
            .filling
            .get_mut(level)
            .map(core::mem::take)
            .unwrap_or_default();
        block.resize(BLOCK_LEN, 0);
        let hash = self.hasher.hash(&block);
        if level > 0
            && let Some(complete) = self.complete.get_mut(level)
        {
            complete.append(&mut block);
        }
        hash
    }

    /// The tree; none if there were no leaves.
    pub fn finish(mut self) -> Option<Tree> {
        let geometry = Geometry::new(self.leaves)?;
        let mut root = self.last_leaf;
        for (level, blocks) in geometry.levels.iter().enumerate() {
            let closed_already = self.filling.get(level).is_none_or(Vec::is_empty);
            if *blocks == 1 {
                // The top: closed by its last hash, which then sits alone one level up, or closed now.
                root = if closed_already {
                    let above = self.filling.get(level.saturating_add(1));
                    above
                        .and_then(|hashes| hashes.first_chunk())
                        .copied()
                        .unwrap_or(root)
                } else {
                    self.close(level)
                };
            } else if !closed_already {
                let hash = self.close(level);
                self.add(level.saturating_add(1), hash);
            }
        }
        let above_leaves = self
            .complete
            .get(1..geometry.levels.len())
            .unwrap_or_default();
        let upper = above_leaves.iter().rev().flatten().copied().collect();
        Some(Tree {
            root: RootHash(root),
            upper,
            data_blocks: self.leaves,
        })
    }

    /// The root hash of a tree over `leaves`.
    pub fn root_of(salt: &Salt, leaves: &[u8]) -> Option<RootHash> {
        let mut builder = Self::new(salt);
        builder.push(leaves);
        Some(builder.finish()?.root)
    }
}

impl Tree {
    /// The whole tree as it lies on the disk after the data, given the leaves it was built from.
    pub fn to_bytes(&self, leaves: &[u8]) -> Vec<u8> {
        let padded = leaves.len().next_multiple_of(BLOCK_LEN);
        let mut bytes = Vec::with_capacity(self.upper.len().saturating_add(padded));
        bytes.extend_from_slice(&self.upper);
        if self.data_blocks > 1 {
            bytes.extend_from_slice(leaves);
            bytes.resize(self.upper.len().saturating_add(padded), 0);
        }
        bytes
    }
}

/// Bytes of `blocks` blocks, in memory.
pub fn blocks_len(blocks: u64) -> usize {
    memory_len(blocks.saturating_mul(BLOCK))
}
