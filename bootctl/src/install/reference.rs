//! What the machine already has: the slot beside the one that is written.
//!
//! Its verity leaves say which block it has where. Nothing of it is believed: each block is hashed
//! again when it is copied, and fetched if it is not what its leaf said.

use boot_core::Device;
use boot_core::manifest::Uki;
use boot_core::slot_header::read_slot;
use boot_core::types::Salt;
use boot_core::verity::{BLOCK, Geometry, HASH};

use crate::boot::slot_check::SlotDevices;

/// The most blocks that are indexed, at 12 bytes each: 2 GiB of root.
const INDEXED: u64 = 512 * 1024;
/// What is read at a time.
const STEP: u64 = 256 * 1024;

/// The other slot, as far as it is of use.
pub(super) struct Reference<'d, D> {
    parts: &'d mut SlotDevices<D>,
    uki: Uki,
    uki_offset: u64,
    /// Start of a leaf, and the block that it is of; sorted.
    index: Vec<[u32; 3]>,
}

fn start_of(leaf: &[u8]) -> [u32; 2] {
    let word = |at: usize| {
        leaf.get(at..at + 4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    };
    [word(0), word(4)]
}

impl<'d, D: Device> Reference<'d, D> {
    /// Reads what is in `parts`; none if nothing in it is of use.
    pub(super) fn open(parts: &'d mut SlotDevices<D>, salt: Option<&Salt>) -> Option<Self> {
        let slot = read_slot(&mut parts.boot).ok()?;
        let (manifest, _) = slot.manifest_unverified().ok()?;
        let mut reference = Self {
            parts,
            uki: manifest.uki?,
            uki_offset: slot.header.uki_offset,
            index: Vec::new(),
        };
        // Another salt makes other leaves of the same blocks: nothing can be compared.
        if let Some(root) = &manifest.root
            && salt == Some(&root.salt)
        {
            let blocks = root.data_blocks().min(INDEXED);
            let geometry = Geometry::new(root.data_blocks())?;
            reference.read_index(&geometry, blocks);
        }
        Some(reference)
    }

    fn read_index(&mut self, geometry: &Geometry, blocks: u64) {
        let Some(start) = geometry.leaves_offset() else {
            return;
        };
        let mut index = Vec::with_capacity(blocks as usize);
        let mut buf = vec![0; STEP as usize];
        let length = blocks * HASH as u64;
        let mut done = 0;
        while done < length {
            let part = STEP.min(length - done).next_multiple_of(BLOCK) as usize;
            if self
                .parts
                .root
                .read_at(start + done, &mut buf[..part])
                .is_err()
            {
                return;
            }
            for leaf in buf[..part].chunks_exact(HASH) {
                if index.len() as u64 == blocks {
                    break;
                }
                let [a, b] = start_of(leaf);
                index.push([a, b, index.len() as u32]);
            }
            done += part as u64;
        }
        index.sort_unstable();
        self.index = index;
    }

    /// The block that has this leaf, as far as leaves can tell.
    pub(super) fn find(&self, leaf: &[u8]) -> Option<u64> {
        let [a, b] = start_of(leaf);
        let at = self.index.partition_point(|e| (e[0], e[1]) < (a, b));
        let entry = self.index.get(at)?;
        ((entry[0], entry[1]) == (a, b)).then_some(entry[2].into())
    }

    /// Reads blocks of the root from `block` on.
    pub(super) fn read_blocks(&mut self, block: u64, buf: &mut [u8]) -> bool {
        self.parts.root.read_at(block * BLOCK, buf).is_ok()
    }

    /// The chunk of the UKI that has this digest, as far as the manifest can tell.
    pub(super) fn find_uki(&self, digest: &boot_core::Digest) -> Option<usize> {
        self.uki.chunks.iter().position(|c| c == digest)
    }

    /// Reads a chunk of the UKI into `buf`, which is as long as its blocks.
    pub(super) fn read_uki(&mut self, chunk: usize, buf: &mut [u8]) -> bool {
        let offset = self.uki_offset + chunk as u64 * self.uki.chunk_size;
        self.parts.boot.read_at(offset, buf).is_ok()
    }
}
