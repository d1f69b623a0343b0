//! A slot as a bundle: what is in one slot goes into the other through the same installer, with the same verifier,
//! as what comes from a server.
//!
//! Frames are made when they are read, and store their chunk as it is: so their lengths are known before.

use boot_core::bundle::{FrameTable, Header};
use boot_core::manifest::{Chunk, Manifest, Uki};
use boot_core::slot_header::{UKI_OFFSET, read_slot};
use boot_core::verity::{BLOCK, BlockHasher, Geometry};
use boot_core::{Device, Slot};

use super::{Source, too_short};
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Failure, Result};

/// Longest block of a zstd frame.
const STORED: usize = 128 << 10;

/// The slot, read.
pub struct InSlot<D> {
    name: String,
    parts: SlotDevices<D>,
    manifest: Manifest,
    uki: Uki,
    /// Everything before the frames.
    front: Vec<u8>,
    table: FrameTable,
    /// The frame that was read last.
    current: Option<(u32, Vec<u8>)>,
}

impl<D: Device> InSlot<D> {
    /// Opens what is in `parts`, the partitions of `slot`. Nothing of it is verified: who reads the bundle does that.
    ///
    /// # Errors
    /// There is no slot header to go by, or no manifest that can be read.
    pub fn open(slot: Slot, mut parts: SlotDevices<D>) -> Result<Self> {
        let name = format!("slot {slot}");
        let unreadable = |e: String| Failure::verification(e).doing(&name);
        let found = read_slot(&mut parts.boot).map_err(|e| unreadable(e.to_string()))?;
        let found_manifest = found.manifest_unverified();
        let (manifest, _) = found_manifest.map_err(|e| unreadable(e.to_string()))?;
        let leaves = leaves(&mut parts.root, &manifest).map_err(unreadable)?;
        let uki = manifest
            .uki()
            .map_err(|e| unreadable(e.to_string()))?
            .clone();
        let uki_frames = uki.chunks.len() as u32;
        let root_size = manifest.root.as_ref().map_or(0, |root| root.data_size);
        let sizes = [uki.size, root_size];
        let lengths = sizes
            .into_iter()
            .flat_map(Chunk::all)
            .map(|chunk| stored_len(chunk.len) as u32)
            .collect();
        let table = FrameTable::new(lengths).map_err(|e| unreadable(e.to_string()))?;
        let header = Header {
            flags: 0,
            envelope_length: found.envelope.len() as u32,
            keyring_length: found.keyring.len() as u32,
            uki_frames,
            root_frames: table.lengths().len() as u32 - uki_frames,
            leaves_length: leaves.len() as u64,
        };
        let front = [
            &header.encode()[..],
            &found.envelope,
            &found.keyring,
            &table.encode(),
            &leaves,
        ]
        .concat();
        Ok(Self {
            name,
            parts,
            manifest,
            uki,
            front,
            table,
            current: None,
        })
    }

    fn end(&self) -> u64 {
        self.front.len() as u64 + self.table.total()
    }

    /// Makes the frame `index`, unless it is the one that was made last.
    fn frame(&mut self, index: u32) -> Result<&[u8]> {
        if self.current.as_ref().is_none_or(|(made, _)| *made != index) {
            let uki_frames = self.uki.chunks.len() as u32;
            let (device, start, chunk) = match index.checked_sub(uki_frames) {
                None => {
                    let chunk = Chunk::of(self.uki.size, index);
                    (&mut self.parts.boot, UKI_OFFSET, chunk)
                }
                Some(of_root) => {
                    let size = self.manifest.root.as_ref().map_or(0, |root| root.data_size);
                    (&mut self.parts.root, 0, Chunk::of(size, of_root))
                }
            };
            let mut bytes = vec![0; chunk.len_on_disk()];
            device
                .read_at(start + chunk.offset, &mut bytes)
                .map_err(|e| Failure::source(e).doing(format!("reading {}", self.name)))?;
            self.current = Some((index, stored(&bytes[..chunk.len])));
        }
        Ok(self.current.as_ref().map_or(&[], |(_, frame)| frame))
    }
}

impl<D: Device> Source for InSlot<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        Some(self.end())
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = self.end();
        if offset + buf.len() as u64 > end {
            return Err(too_short(&self.name, offset, buf.len(), end));
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let front = self.front.len() as u64;
            let (within, bytes) = match at.checked_sub(front) {
                None => (at, &self.front[..]),
                Some(of_frames) => {
                    let frames = 0..self.table.lengths().len() as u32;
                    let starts =
                        frames.filter_map(|index| Some((index, self.table.frame(index)?.0)));
                    let (index, start) = starts
                        .take_while(|(_, start)| *start <= of_frames)
                        .last()
                        .unwrap_or((0, 0));
                    (of_frames - start, self.frame(index)?)
                }
            };
            let found = &bytes[within as usize..];
            let count = found.len().min(rest.len());
            rest[..count].copy_from_slice(&found[..count]);
            rest = &mut rest[count..];
            at += count as u64;
        }
        Ok(())
    }

    fn ends_at(&mut self, offset: u64) -> Result<bool> {
        Ok(offset == self.end())
    }
}

/// The verity leaves, as they lie in the root partition.
fn leaves<D: Device>(device: &mut D, manifest: &Manifest) -> Result<Vec<u8>, String> {
    let Some(root) = &manifest.root else {
        return Ok(Vec::new());
    };
    let geometry = Geometry::new(root.data_blocks()).ok_or("its root is empty")?;
    let Some(offset) = geometry.leaves_offset() else {
        let mut block = vec![0; BLOCK as usize];
        device.read_at(0, &mut block).map_err(|e| e.to_string())?;
        return Ok(BlockHasher::new(&root.salt).hash(&block).to_vec());
    };
    let length = geometry.leaves_len() as usize;
    let mut leaves = vec![0; length.next_multiple_of(BLOCK as usize)];
    device
        .read_at(offset, &mut leaves)
        .map_err(|e| e.to_string())?;
    leaves.truncate(length);
    Ok(leaves)
}

/// A zstd frame that stores `bytes` as they are. Source: RFC 8878, sections 3.1.1.1 and 3.1.1.2.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(stored_len(bytes.len()));
    // Magic; content size of four bytes, one segment, no checksum.
    frame.extend([0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    frame.extend((bytes.len() as u32).to_le_bytes());
    let blocks = bytes.len().div_ceil(STORED);
    for (number, block) in (1..).zip(bytes.chunks(STORED)) {
        let last = u32::from(number == blocks);
        let header = (block.len() as u32) << 3 | last;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(block);
    }
    frame
}

/// How long that frame is.
fn stored_len(length: usize) -> usize {
    9 + 3 * length.div_ceil(STORED) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_core::manifest::CHUNK_SIZE;

    #[test]
    fn stored_frames_are_zstds() {
        for length in [1, 300, STORED, STORED + 1, CHUNK_SIZE as usize] {
            let bytes: Vec<u8> = (0..length).map(|at| (at / 3) as u8).collect();
            let frame = stored(&bytes);
            assert_eq!(frame.len(), stored_len(length));
            let mut unpacker = zstd::bulk::Decompressor::new().unwrap();
            unpacker
                .window_log_max(boot_core::bundle::WINDOW_LOG_MAX)
                .unwrap();
            assert!(unpacker.decompress(&frame, length).unwrap() == bytes);
        }
        assert!(stored_len(CHUNK_SIZE as usize) <= boot_core::bundle::FRAME_MAX as usize);
    }
}
