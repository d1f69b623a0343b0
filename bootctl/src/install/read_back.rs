//! Step 5: everything read back from the device, and every byte verified.

use boot_core::manifest::{CHUNK_SIZE, chunk_len};
use boot_core::slot_header::UKI_OFFSET;
use boot_core::verity::{BLOCK, BlockHasher};
use boot_core::{Device, Digest};
use sha2::{Digest as _, Sha256};

use super::bundle_front::Head;
use super::leaves::Leaves;
use super::{disk, unpack, write};
use crate::boot::slot_check::Parts;
use crate::failure::{Failure, Result};
use crate::progress::Progress;

/// Reads UKI, root and tree, and compares.
pub(super) fn all<D: Device>(
    head: &Head,
    leaves: &Leaves,
    upper: &[u8],
    target: &mut Parts<D>,
    progress: &Progress,
) -> Result<()> {
    let manifest = &head.manifest;
    let root_size = manifest.root.as_ref().map_or(0, |r| r.data_size);
    progress.begin("verifying", manifest.uki.size + root_size);
    let mut buf = vec![0; CHUNK_SIZE as usize];
    let mut whole = Sha256::new();
    for (index, digest) in manifest.uki.chunks.iter().enumerate() {
        let len = chunk_len(manifest.uki.size, index as u64);
        let rounded = len.next_multiple_of(BLOCK as usize);
        let offset = UKI_OFFSET + index as u64 * CHUNK_SIZE;
        target
            .boot
            .read_at(offset, &mut buf[..rounded])
            .map_err(disk)?;
        if Digest::of(&buf[..len]) != *digest {
            return Err(differs("UKI", offset));
        }
        whole.update(&buf[..len]);
        progress.add(len as u64);
    }
    if Digest(whole.finalize().into()) != manifest.uki.digest {
        return Err(unpack::contradicts_itself());
    }
    if let Some(root) = &manifest.root {
        let hasher = BlockHasher::new(&root.salt);
        for index in 0..root.data_size.div_ceil(CHUNK_SIZE) {
            let len = chunk_len(root.data_size, index);
            let offset = index * CHUNK_SIZE;
            target.root.read_at(offset, &mut buf[..len]).map_err(disk)?;
            let wanted = leaves.get(offset / BLOCK, len / BLOCK as usize)?;
            hasher
                .check_run(&wanted, &buf[..len])
                .map_err(|m| differs("root", offset + m.block * BLOCK))?;
            progress.add(len as u64);
        }
        write::tree_parts(head, leaves, upper, |offset, bytes| {
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
