//! SHA-256 of what lies on a device, in the one pass in which it is read.

use alloc::vec;

use sha2::{Digest as _, Sha256};

use crate::{
    bytes::{disk_len, memory_len},
    device::{Device, block_len},
    types::Digest,
};

/// How much is read before it is hashed: little enough to be still in the processor's cache where that is large, much
/// enough that the cost of a call, which is high in firmware, does not show.
const STEP: usize = 4 << 20;

/// Fills `buffer` from `offset`, and gives the digest of its first `length` bytes. `buffer` has whole blocks.
pub fn read<D: Device>(
    device: &mut D,
    offset: u64,
    buffer: &mut [u8],
    length: usize,
) -> Result<Digest, D::Error> {
    let mut hash = Sha256::new();
    let mut left = length;
    let mut at = offset;
    for step in buffer.chunks_mut(STEP) {
        device.read_at(at, step)?;
        let part = step.get(..left.min(step.len())).unwrap_or_default();
        hash.update(part);
        left = left.saturating_sub(part.len());
        at = at.saturating_add(disk_len(step.len()));
    }
    Ok(Digest(hash.finalize().into()))
}

/// The digest of `length` bytes from `offset`, which are not kept.
pub fn digest<D: Device>(device: &mut D, offset: u64, length: u64) -> Result<Digest, D::Error> {
    let mut hash = Sha256::new();
    let block = block_len(device);
    let mut buffer = vec![0; STEP.min(memory_len(length)).next_multiple_of(block)];
    let mut left = length;
    let mut at = offset;
    while left > 0 {
        let part = buffer.len().min(memory_len(left));
        let step = buffer
            .get_mut(..part.next_multiple_of(block))
            .unwrap_or_default();
        device.read_at(at, step)?;
        hash.update(step.get(..part).unwrap_or_default());
        left = left.saturating_sub(disk_len(part));
        at = at.saturating_add(disk_len(part));
    }
    Ok(Digest(hash.finalize().into()))
}
