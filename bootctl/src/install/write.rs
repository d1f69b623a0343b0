//! Step 4: chunks into their places, each verified before it is written.

use boot_core::manifest::{CHUNK_SIZE, Chunk};
use boot_core::verity::{BLOCK, BlockHasher, HASH};
use boot_core::{Device, Digest};

use super::bundle_front::BundleFront;
use super::chunk_plan::{ChunkPlan, Origin};
use super::leaves::Leaves;
use super::reference::Reference;
use super::unpack::{Unpacker, damaged};
use super::{Fetched, disk, uki_chunk};
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::source::Source;

/// Writes one bundle.
pub(super) struct Writer<'a, 'r, D> {
    front: &'a BundleFront,
    leaves: &'a Leaves,
    target: &'a mut SlotDevices<D>,
    reference: Option<&'a mut Reference<'r, D>>,
    source: &'a mut dyn Source,
    progress: &'a Progress,
    unpacker: Unpacker,
    chunk: Vec<u8>,
    fetched: Fetched,
}

impl<'a, 'r, D: Device> Writer<'a, 'r, D> {
    pub(super) fn new(
        front: &'a BundleFront,
        leaves: &'a Leaves,
        target: &'a mut SlotDevices<D>,
        reference: Option<&'a mut Reference<'r, D>>,
        source: &'a mut dyn Source,
        progress: &'a Progress,
    ) -> Result<Self> {
        Ok(Self {
            front,
            leaves,
            target,
            reference,
            source,
            progress,
            unpacker: Unpacker::new()?,
            chunk: vec![0; CHUNK_SIZE as usize],
            fetched: Fetched::default(),
        })
    }

    /// Writes everything that is not in place.
    pub(super) fn all(&mut self, plan: &ChunkPlan) -> Result<Fetched> {
        let lengths = self.front.table.lengths();
        let to_fetch = plan
            .chunks
            .iter()
            .zip(lengths)
            .filter(|(from, _)| **from == Origin::Source)
            .map(|(_, length)| u64::from(*length))
            .sum();
        self.progress.begin("fetching", to_fetch);
        for (index, from) in plan.chunks.iter().enumerate() {
            if *from == Origin::Source {
                self.expect(plan, index);
            }
            let index = index as u32;
            match index.checked_sub(self.front.header.uki_frames) {
                None => self.uki_chunk(index, *from)?,
                Some(of_root) => self.root_chunk(index, of_root, *from)?,
            }
        }
        self.progress.end();
        Ok(self.fetched)
    }

    /// Tells the source how far the run of wanted frames goes that begins at `index`.
    fn expect(&mut self, plan: &ChunkPlan, index: usize) {
        let run = plan.chunks[index..]
            .iter()
            .take_while(|from| **from == Origin::Source)
            .count();
        if let Some((start, length)) = self.front.table.frame((index + run - 1) as u32) {
            let end = self.front.header.frames_offset() + start + u64::from(length);
            self.source.expect_until(end);
        }
    }

    fn uki_chunk(&mut self, index: u32, from: Origin) -> Result<()> {
        let uki = &self.front.uki;
        let (chunk, digest) = (Chunk::of(uki.size, index), uki.chunks[index as usize]);
        match from {
            Origin::Place => return Ok(()),
            Origin::Here if self.copy_uki(&digest, chunk) => {}
            _ => {
                self.fetch(index, chunk.len)?;
                if Digest::of(&self.chunk[..chunk.len]) != digest {
                    return Err(self.damaged(index));
                }
            }
        }
        uki_chunk::write(&mut self.target.boot, chunk, &mut self.chunk)
            .map_err(|e| disk(e).doing("writing the UKI"))
    }

    fn copy_uki(&mut self, digest: &Digest, chunk: Chunk) -> bool {
        let Some(reference) = &mut self.reference else {
            return false;
        };
        let buf = &mut self.chunk[..chunk.len_on_disk()];
        reference
            .find_uki(digest)
            .is_some_and(|there| reference.read_uki(there, buf))
            && Digest::of(&self.chunk[..chunk.len]) == *digest
    }

    fn root_chunk(&mut self, frame: u32, index: u32, from: Origin) -> Result<()> {
        let Some(root) = &self.front.manifest.root else {
            return Err(Failure::verification(
                "the bundle has frames for a root, its manifest has none",
            ));
        };
        if from == Origin::Place {
            return Ok(());
        }
        let Chunk { offset, len, .. } = Chunk::of(root.data_size, index);
        let hasher = BlockHasher::new(&root.salt);
        let wanted = self.leaves.get(offset / BLOCK, len / BLOCK as usize)?;
        let here = from == Origin::Here && self.put_together(&hasher, offset, len, &wanted);
        if !here {
            self.fetch(frame, len)?;
            if hasher.check_run(&wanted, &self.chunk[..len]).is_err() {
                return Err(self.damaged(frame));
            }
        }
        self.target
            .root
            .write_at(offset, &self.chunk[..len])
            .map_err(|e| disk(e).doing("writing the root"))
    }

    /// Makes a chunk of the root from blocks of both slots; false if one of them is not what it was.
    fn put_together(
        &mut self,
        hasher: &BlockHasher,
        offset: u64,
        len: usize,
        wanted: &[u8],
    ) -> bool {
        if self
            .target
            .root
            .read_at(offset, &mut self.chunk[..len])
            .is_err()
        {
            return false;
        }
        let zero = hasher.hash(&[0; BLOCK as usize]);
        // Block of the chunk, and the block of the other slot that is the same.
        let mut missing: Vec<(usize, u64)> = Vec::new();
        let blocks = self.chunk[..len].chunks_exact_mut(BLOCK as usize);
        for (at, (block, leaf)) in blocks.zip(wanted.chunks_exact(HASH)).enumerate() {
            if hasher.hash(block) == leaf {
                continue;
            }
            if leaf == zero {
                block.fill(0);
                continue;
            }
            match self.reference.as_ref().and_then(|it| it.find(leaf)) {
                Some(from) => missing.push((at, from)),
                None => return false,
            }
        }
        // Neighbours here are mostly neighbours there: one read for each run of them.
        let runs = missing.chunk_by(|one, next| (one.0 + 1, one.1 + 1) == *next);
        for run in runs {
            let Some((&(at, from), reference)) = run.first().zip(self.reference.as_mut()) else {
                return false;
            };
            let end = at + run.len();
            let copied = &mut self.chunk[at * BLOCK as usize..end * BLOCK as usize];
            let leaves = &wanted[at * HASH..end * HASH];
            if !reference.read_blocks(from, copied) || hasher.check_run(leaves, copied).is_err() {
                return false;
            }
        }
        true
    }

    /// Fetches a frame and decompresses it into the chunk.
    fn fetch(&mut self, frame: u32, len: usize) -> Result<()> {
        let chunk = &mut self.chunk[..len];
        let bytes = self
            .unpacker
            .fetch(self.front, self.source, self.progress, frame, chunk)?;
        if bytes > 0 {
            self.fetched.bytes += bytes;
            self.fetched.image += len as u64;
        }
        Ok(())
    }

    fn damaged(&self, frame: u32) -> Failure {
        damaged(self.source, frame)
    }
}

/// Writes the verity tree after the data.
pub(super) fn tree<D: Device>(
    front: &BundleFront,
    leaves: &Leaves,
    upper: &[u8],
    target: &mut SlotDevices<D>,
) -> Result<()> {
    tree_parts(front, leaves, upper, |offset, bytes| {
        target
            .root
            .write_at(offset, bytes)
            .map_err(|e| disk(e).doing("writing the verity tree"))
    })
}

/// Calls `each` with every part of the verity tree and its place.
pub(super) fn tree_parts(
    front: &BundleFront,
    leaves: &Leaves,
    upper: &[u8],
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    const AT_ONCE: u64 = 32 * 128;
    let Some(root) = &front.manifest.root else {
        return Ok(());
    };
    if !upper.is_empty() {
        each(root.data_size, upper)?;
    }
    let blocks = root.data_blocks();
    if blocks < 2 {
        return Ok(());
    }
    let mut offset = root.data_size + upper.len() as u64;
    let mut first = 0;
    while first < blocks {
        let count = AT_ONCE.min(blocks - first);
        let mut part = leaves.get(first, count as usize)?;
        part.resize(part.len().next_multiple_of(BLOCK as usize), 0);
        each(offset, &part)?;
        offset += part.len() as u64;
        first += count;
    }
    Ok(())
}
