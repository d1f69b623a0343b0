//! The protective MBR in LBA 0: UEFI 2.10, section 5.2.3.

use alloc::vec::Vec;

use crate::bytes::{field, put, u8_at, u32_at};

const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const SIGNATURE_AT: usize = 510;
/// Where the four records lie.
const RECORDS: [usize; 4] = [446, 462, 478, 494];
/// A record's type that stands for "the whole disk has a GPT".
const PROTECTIVE: u8 = 0xee;

/// Whether a block is a protective MBR to firmware and to Linux: its signature, and a record of type 0xEE that is not
/// bootable and starts at LBA 1. Its size is not looked at; disks grow.
pub fn is_protective(block: &[u8]) -> bool {
    field(block, SIGNATURE_AT) == SIGNATURE
        && RECORDS.into_iter().any(|at| {
            let record: [u8; 16] = field(block, at);
            u8_at(&record, 0) == 0 && u8_at(&record, 4) == PROTECTIVE && u32_at(&record, 8) == 1
        })
}

/// One for a disk of so many blocks, as a whole block.
pub(super) fn protective(block: usize, blocks: u64) -> Vec<u8> {
    let [record, ..] = RECORDS;
    let last = blocks.saturating_sub(1);
    let size = u32::try_from(last).unwrap_or(u32::MAX);
    let mut bytes = alloc::vec![0; block];
    // Not bootable; starts at the second sector of the first track.
    let mut fields = alloc::vec![0, 0, 2, 0, PROTECTIVE];
    fields.extend(cylinder_head_sector(last));
    fields.extend(1u32.to_le_bytes());
    fields.extend(size.to_le_bytes());
    put(&mut bytes, record, &fields);
    put(&mut bytes, SIGNATURE_AT, &SIGNATURE);
    bytes
}

/// The address of a block on a disk of 255 heads and 63 sectors a track; all ones where that has none.
fn cylinder_head_sector(lba: u64) -> [u8; 3] {
    const HEADS: u64 = 255;
    const SECTORS: u64 = 63;
    let track = lba.checked_div(SECTORS).unwrap_or(0);
    let cylinder = track.checked_div(HEADS).unwrap_or(0);
    let head = track.checked_rem(HEADS).unwrap_or(0);
    let sector = lba.checked_rem(SECTORS).unwrap_or(0).saturating_add(1);
    let [low, high, ..] = cylinder.to_le_bytes();
    match (u8::try_from(head), u8::try_from(sector)) {
        (Ok(head), Ok(sector)) if cylinder < 1024 => [head, sector | (high << 6), low],
        _ => [0xff; 3],
    }
}
