//! UEFI device paths, as far as we make them: to a file on a partition. Source: UEFI 2.10, sections 10.2 (nodes),
//! 10.3.5.1 (hard drive), 10.3.5.4 (file path).

use alloc::vec::Vec;

use crate::{gpt::Partition, layout::Guid};

/// Type and sub-type of a hard drive's node.
pub const HARD_DRIVE: (u8, u8) = (4, 1);
/// Type and sub-type of a file's node.
pub const FILE: (u8, u8) = (4, 4);
/// The node that ends a path.
pub const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// Where firmware finds a partition, in blocks of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardDrive {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its first block.
    pub first: u64,
    /// How many blocks it has.
    pub blocks: u64,
    /// Its GUID.
    pub guid: Guid,
}

impl HardDrive {
    /// That of an entry of a table, on a disk with blocks of `block_size` bytes.
    pub fn of(partition: &Partition, block_size: u32) -> Self {
        let blocks = |bytes: u64| bytes.checked_div(block_size.into()).unwrap_or(0);
        Self {
            number: partition.number,
            first: blocks(partition.start),
            blocks: blocks(partition.size),
            guid: partition.guid,
        }
    }

    /// The path of `file` on this partition; `disk` is that of its disk without its end, or nothing: then firmware looks
    /// for the partition on all disks.
    pub fn path_of(&self, disk: &[u8], file: &str) -> Vec<u8> {
        let mut partition = Vec::from(self.number.to_le_bytes());
        partition.extend(self.first.to_le_bytes());
        partition.extend(self.blocks.to_le_bytes());
        partition.extend(self.guid.0);
        // A GPT, and a GUID.
        partition.extend([2, 2]);
        let mut path = disk.to_vec();
        push(&mut path, HARD_DRIVE, &partition);
        push(&mut path, FILE, &utf16(file));
        path.extend(END);
        path
    }
}

/// Appends a node: type, sub-type, length with these four bytes, data.
pub fn push(path: &mut Vec<u8>, (kind, sub_kind): (u8, u8), data: &[u8]) {
    // A node that were too long would be one that is malformed, which firmware refuses.
    let length = u16::try_from(data.len().saturating_add(4)).unwrap_or(0);
    path.extend([kind, sub_kind]);
    path.extend(length.to_le_bytes());
    path.extend(data);
}

/// Text as UEFI has it: UTF-16 with a zero at its end.
pub fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().chain([0]);
    units.flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte by byte, as the specification has it.
    #[test]
    fn a_path_is_what_firmware_reads() {
        let place = HardDrive {
            number: 2,
            first: 133_120,
            blocks: 131_072,
            guid: "12345678-9abc-def0-1234-56789abcdef0".parse().unwrap(),
        };
        let path = place.path_of(&[1, 2, 3], "\\A");
        assert_eq!(path[..11], [1, 2, 3, 4, 1, 42, 0, 2, 0, 0, 0]);
        assert_eq!(path[11..19], 133_120_u64.to_le_bytes());
        assert_eq!(path[19..27], 131_072_u64.to_le_bytes());
        assert_eq!(
            path[27..35],
            [0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde]
        );
        assert_eq!(path[43..49], [2, 2, 4, 4, 10, 0]);
        assert_eq!(path[49..], [b'\\', 0, b'A', 0, 0, 0, 0x7f, 0xff, 4, 0]);
    }
}
