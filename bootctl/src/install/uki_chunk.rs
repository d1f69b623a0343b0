//! Chunks of a UKI, where they lie in a boot partition.

use boot_core::Device;
use boot_core::manifest::Chunk;
use boot_core::slot_header::UKI_OFFSET;

/// Reads a chunk into `buf`, and gives it without what fills its last block.
pub(super) fn read<'b, D: Device>(
    device: &mut D,
    chunk: Chunk,
    buf: &'b mut [u8],
) -> Result<&'b [u8], D::Error> {
    device.read_at(offset(chunk), &mut buf[..chunk.len_on_disk()])?;
    Ok(&buf[..chunk.len])
}

/// Writes the chunk that `buf` begins with, its last block filled with zeros.
pub(super) fn write<D: Device>(
    device: &mut D,
    chunk: Chunk,
    buf: &mut [u8],
) -> Result<(), D::Error> {
    let whole = &mut buf[..chunk.len_on_disk()];
    whole[chunk.len..].fill(0);
    device.write_at(offset(chunk), whole)
}

/// Where a chunk begins, in bytes from the beginning of the partition.
pub(super) fn offset(chunk: Chunk) -> u64 {
    UKI_OFFSET + chunk.offset
}
