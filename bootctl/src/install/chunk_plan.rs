//! What has to be fetched: the chunks of which a block is neither in the slot already nor in the
//! other one. Reads only, and stops looking at a chunk as soon as it has to be fetched anyway. What cannot be read is not
//! there: writing over it is what mends a bad sector.

use boot_core::manifest::{CHUNK_SIZE, Chunk};
use boot_core::verity::{BLOCK, BlockHasher, HASH};
use boot_core::{Device, Digest};

use super::bundle_front::BundleFront;
use super::leaves::Leaves;
use super::reference::Reference;
use super::uki_chunk;
use crate::boot::slot_check::SlotDevices;
use crate::failure::Result;

/// Read at a time: what is not there is mostly noticed in the first block.
const STEP: usize = 256 * 1024;

/// Where a chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is in place.
    Place,
    /// All of it can be put together here.
    Here,
    /// The bundle.
    Source,
}

/// Of each chunk, the UKI's first.
pub(super) struct ChunkPlan {
    /// Where it comes from.
    pub chunks: Vec<Origin>,
}

impl ChunkPlan {
    /// Whether everything is in place.
    pub(super) fn is_complete(&self) -> bool {
        self.chunks.iter().all(|c| *c == Origin::Place)
    }
}

/// Looks at both slots.
pub(super) fn plan<D: Device>(
    front: &BundleFront,
    leaves: &Leaves,
    target: &mut SlotDevices<D>,
    reference: Option<&Reference<'_, D>>,
) -> Result<ChunkPlan> {
    let mut chunks = Vec::with_capacity(front.table.lengths().len());
    let mut buf = vec![0; CHUNK_SIZE as usize];
    let uki = &front.uki;
    for (chunk, digest) in Chunk::all(uki.size).zip(&uki.chunks) {
        let found = uki_chunk::read(&mut target.boot, chunk, &mut buf);
        chunks.push(if found.is_ok_and(|it| Digest::of(it) == *digest) {
            Origin::Place
        } else if reference.is_some_and(|r| r.find_uki(digest).is_some()) {
            Origin::Here
        } else {
            Origin::Source
        });
    }
    let Some(root) = &front.manifest.root else {
        return Ok(ChunkPlan { chunks });
    };
    let hasher = BlockHasher::new(&root.salt);
    let zero = hasher.hash(&[0; BLOCK as usize]);
    for Chunk { offset, len, .. } in Chunk::all(root.data_size) {
        let wanted = leaves.get(offset / BLOCK, len / BLOCK as usize)?;
        let mut from = Origin::Place;
        let steps = wanted.chunks(STEP / BLOCK as usize * HASH);
        'chunk: for (step, wanted) in steps.enumerate() {
            let part = wanted.len() / HASH * BLOCK as usize;
            let buf = &mut buf[..part];
            let at = offset + (step * STEP) as u64;
            if target.root.read_at(at, buf).is_err() {
                from = Origin::Source;
                break;
            }
            for (block, leaf) in buf
                .chunks_exact(BLOCK as usize)
                .zip(wanted.chunks_exact(HASH))
            {
                if hasher.hash(block) == leaf {
                    continue;
                }
                if leaf == zero || reference.is_some_and(|r| r.find(leaf).is_some()) {
                    from = Origin::Here;
                } else {
                    from = Origin::Source;
                    break 'chunk;
                }
            }
        }
        chunks.push(from);
    }
    Ok(ChunkPlan { chunks })
}
