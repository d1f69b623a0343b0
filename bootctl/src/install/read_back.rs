//! Step 5: everything read back from the device, and every byte verified.

use boot_core::manifest::{CHUNK_SIZE, Chunk};
use boot_core::verity::{BLOCK, BlockHasher};
use boot_core::{Device, Digest};
use sha2::{Digest as _, Sha256};

use super::bundle_front::BundleFront;
use super::leaves::Leaves;
use super::{disk, uki_chunk, unpack, write};
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// Reads UKI, root and tree, and compares.
pub(super) fn all<D: Device>(
    front: &BundleFront,
    leaves: &Leaves,
    upper: &[u8],
    target: &mut SlotDevices<D>,
    progress: &Progress,
) -> Result<()> {
    let manifest = &front.manifest;
    let root_size = manifest.root.as_ref().map_or(0, |r| r.data_size);
    progress.begin("verifying", front.uki.size + root_size);
    let mut buf = vec![0; CHUNK_SIZE as usize];
    let mut whole = Sha256::new();
    for (chunk, digest) in Chunk::all(front.uki.size).zip(&front.uki.chunks) {
        let bytes = uki_chunk::read(&mut target.boot, chunk, &mut buf).map_err(disk)?;
        if Digest::of(bytes) != *digest {
            return Err(differs("UKI", uki_chunk::offset(chunk)));
        }
        whole.update(bytes);
        progress.add(chunk.len as u64);
    }
    if Digest(whole.finalize().into()) != front.uki.digest {
        return Err(unpack::contradicts_itself());
    }
    if let Some(root) = &manifest.root {
        let hasher = BlockHasher::new(&root.salt);
        for Chunk { offset, len, .. } in Chunk::all(root.data_size) {
            target.root.read_at(offset, &mut buf[..len]).map_err(disk)?;
            let wanted = leaves.get(offset / BLOCK, len / BLOCK as usize)?;
            hasher
                .check_run(&wanted, &buf[..len])
                .map_err(|m| differs("root", offset + m.block * BLOCK))?;
            progress.add(len as u64);
        }
        write::tree_parts(front, leaves, upper, |offset, bytes| {
            let mut found = vec![0; bytes.len()];
            target.root.read_at(offset, &mut found).map_err(disk)?;
            if found == bytes {
                Ok(())
            } else {
                Err(differs("verity tree", offset))
            }
        })?;
    }
    progress.end();
    Ok(())
}

fn differs(what: &str, offset: u64) -> Failure {
    Failure::verification(format!(
        "the {what} read back from the disk differs from what was written, at byte {offset}"
    ))
    .next("the disk does not keep what is written to it: look at it (journalctl -k, smartctl) and replace it")
}
