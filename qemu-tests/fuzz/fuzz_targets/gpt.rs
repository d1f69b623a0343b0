//! The partition table, as it is read, made, and moved to the end of a larger disk.
//!
//! - what is planned for the table writes nothing within a partition and moves none, and leaves a table with the same
//!   partitions and nothing left to do;
//! - what is read can be made again, wherever a new table has room for it.
#![no_main]

use arbitrary::Arbitrary;
use boot_core::Device as _;
use boot_core::gpt::{Partition, Step, apply, create, is_protective, plan_growth, read};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::disk::Sparse;
use sternpost_fuzz::{CRC, Flip, memory, seal};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    large: bool,
    blocks: u16,
    copies: Vec<Copy<'a>>,
    flips: Vec<(u8, Flip)>,
    /// A block that cannot be read.
    bad: Option<u8>,
}

/// A copy of a table, anywhere.
#[derive(Arbitrary, Debug)]
struct Copy<'a> {
    place: Place,
    entries_at: Option<u64>,
    count: Option<u32>,
    entry_size: Option<u32>,
    my_lba: Option<u64>,
    alternate: Option<u64>,
    first_usable: Option<u64>,
    last_usable: Option<u64>,
    entries: Vec<Entry<'a>>,
    /// To the header, before it is sealed.
    flips: Vec<Flip>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Primary,
    Backup,
    At(u16),
}

#[derive(Arbitrary, Debug)]
struct Entry<'a> {
    number: u8,
    first: u64,
    /// Blocks, where it is sane.
    length: u16,
    last: Option<u64>,
    label: Option<&'a [u8]>,
}

impl Copy<'_> {
    fn put(&self, disk: &mut Sparse, block: u64, blocks: u64) {
        let last = blocks - 1;
        let lba = match self.place {
            Place::Primary => 1,
            Place::Backup => last,
            Place::At(lba) => u64::from(lba) % blocks,
        };
        let count = self.count.unwrap_or(128);
        let entry_size = self.entry_size.unwrap_or(128);
        let bytes = u64::from(count) * u64::from(entry_size);
        let mut array = vec![0; bytes.min(64 << 10) as usize];
        for entry in &self.entries {
            let at = usize::from(entry.number) % 16 * (entry_size as usize).max(128);
            let Some(place) = array.get_mut(at..at + 128) else {
                continue;
            };
            let first = entry.first % (blocks + 2);
            place[..32].fill(0x11);
            place[32..40].copy_from_slice(&first.to_le_bytes());
            let last = entry.last.unwrap_or(first + u64::from(entry.length));
            place[40..48].copy_from_slice(&last.to_le_bytes());
            match entry.label {
                Some(label) => {
                    let length = label.len().min(72);
                    place[56..56 + length].copy_from_slice(&label[..length]);
                }
                None => {
                    for (unit, to) in "state".encode_utf16().zip(place[56..].chunks_exact_mut(2)) {
                        to.copy_from_slice(&unit.to_le_bytes());
                    }
                }
            }
        }
        let length = (array.len() as u64).div_ceil(block);
        let entries_at = self.entries_at.unwrap_or(match self.place {
            Place::Primary => 2,
            Place::Backup | Place::At(_) => lba.saturating_sub(length),
        });
        let mut header = vec![0; block as usize];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        let mut put =
            |at: usize, value: u64| header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(24, self.my_lba.unwrap_or(lba));
        put(
            32,
            self.alternate.unwrap_or(if lba == 1 { last } else { 1 }),
        );
        put(40, self.first_usable.unwrap_or(2 + length));
        put(
            48,
            self.last_usable.unwrap_or(last.saturating_sub(length + 1)),
        );
        put(56, 0x5a5a);
        put(72, entries_at);
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&CRC.checksum(&array).to_le_bytes());
        self.flips
            .iter()
            .for_each(|flip| flip.apply(&mut header[..92]));
        seal(&mut header[..92], 16);
        if let Some(at) = entries_at
            .checked_mul(block)
            .filter(|_| entries_at < blocks)
        {
            disk.put(at, &array);
        }
        disk.put(lba * block, &header);
    }
}

fn partitions(disk: &mut Sparse) -> Option<Vec<Partition>> {
    let table = memory::within(1 << 20, || read(disk)).ok()?;
    Some(table.partitions)
}

fuzz_target!(|input: Input<'_>| {
    let block_size = if input.large { 4096 } else { 512 };
    let block = u64::from(block_size);
    let blocks = u64::from(input.blocks) + 8;
    let mut disk = Sparse::new(blocks * block, block_size);
    for copy in input.copies.iter().take(4) {
        copy.put(&mut disk, block, blocks);
    }
    for (at, flip) in input.flips.iter().take(4) {
        let at = u64::from(*at) % blocks * block;
        let mut bytes = vec![0; block_size as usize];
        disk.read_at(at, &mut bytes).expect("it is within the disk");
        flip.apply(&mut bytes);
        disk.put(at, &bytes);
    }
    // From the front, or, the upper half of the numbers, from the back.
    if let Some(bad) = input.bad {
        let lba = match u64::from(bad) {
            bad @ 0..128 => bad % blocks,
            bad => blocks - 1 - (bad - 128) % blocks,
        };
        disk.bad.push(lba * block / 512);
    }
    let Some(before) = partitions(&mut disk) else {
        return;
    };
    let table = read(&mut disk).expect("it was read just now");
    let mut made = Sparse::new(blocks * block, block_size);
    if let Ok(steps) = create(table.disk_guid, block_size, blocks * block, &before) {
        apply(&mut made, &steps).expect("the disk takes it");
        assert_eq!(partitions(&mut made).as_ref(), Some(&before));
    }
    let Ok(Some(plan)) = plan_growth(&table) else {
        return;
    };
    let mut first = vec![0; block_size as usize];
    let has_mbr = disk.read_at(0, &mut first).is_ok() && is_protective(&first);
    for step in &plan.steps {
        if let Step::Write { offset, bytes } = step {
            let end = offset + bytes.len() as u64;
            // The protective MBR, where it is none.
            assert!(*offset >= block || !has_mbr && end == block);
            assert!(end <= blocks * block);
            let hit = before
                .iter()
                .find(|it| *offset < it.start + it.size && it.start < end);
            assert!(hit.is_none(), "{offset}..{end} is written, within {hit:?}");
        }
    }
    apply(&mut disk, &plan.steps).expect("the disk takes it");
    let after = partitions(&mut disk).expect("there is a table");
    assert_eq!(before.len(), after.len());
    for (one, other) in before.iter().zip(&after) {
        assert!(one.number == other.number && one.label == other.label);
        assert!(one.start == other.start && one.size <= other.size);
        assert!(one.size == other.size || one.label == "state");
    }
    let table = read(&mut disk).expect("it was read just now");
    assert!(table.is_whole());
    assert_eq!(plan_growth(&table).ok().flatten(), None, "it does not end");
});
