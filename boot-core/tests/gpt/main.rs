//! The partition table: what is read and what is refused, and that it moves to the end of a larger disk, whatever
//! happens on the way. The judge is another implementation, the `gpt` crate.

#![allow(clippy::unwrap_used)]

mod memory;

use std::collections::BTreeMap;
use std::io::Cursor;

use boot_core::gpt::{
    Defect, FindError, GptError, Partition, Plan, Step, apply, create, plan_growth, read,
};
use boot_core::layout::{Guid, TYPE_BOOT};
use boot_core::{Device, layout};
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::LINUX_FS;

use crate::memory::{Logged, Memory};

const MIB: u64 = 1 << 20;

/// A disk as imager makes it, small: nine partitions of 1 MiB, written by another implementation.
fn image(block_size: u32) -> Vec<u8> {
    let size = match block_size {
        512 => LogicalBlockSize::Lb512,
        _ => LogicalBlockSize::Lb4096,
    };
    let mut disk = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(size)
        .create_from_device(Cursor::new(vec![0u8; 12 * MIB as usize]), None)
        .unwrap();
    for part in layout::Label::ALL {
        disk.add_partition(
            part.label(),
            MIB,
            LINUX_FS,
            0,
            Some(MIB / u64::from(block_size)),
        )
        .unwrap();
    }
    let mut bytes = disk.write().unwrap();
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::MAX)
        .overwrite_lba0(&mut bytes)
        .unwrap();
    bytes.into_inner()
}

/// The same disk with `bytes` more at its end.
fn grown_disk(block_size: u32, bytes: u64) -> Memory {
    let mut image = image(block_size);
    image.resize(image.len() + bytes as usize, 0);
    Memory::new(image, block_size)
}

fn plan(disk: &mut Memory) -> Option<Plan> {
    let table = read(disk).unwrap();
    plan_growth(&table).unwrap()
}

/// What another implementation, which accepts nothing damaged, makes of it: label to first and last block.
fn strictly(disk: &Memory) -> BTreeMap<String, (u64, u64)> {
    let size = match disk.block_size {
        512 => LogicalBlockSize::Lb512,
        _ => LogicalBlockSize::Lb4096,
    };
    let found = gpt::GptConfig::new()
        .writable(false)
        .logical_block_size(size)
        .open_from_device(Cursor::new(disk.bytes.clone()))
        .unwrap();
    assert!(found.primary_header().is_ok() && found.backup_header().is_ok());
    let last = disk.size() / u64::from(disk.block_size) - 1;
    assert_eq!(found.primary_header().unwrap().backup_lba, last);
    found
        .partitions()
        .values()
        .map(|part| (part.name.clone(), (part.first_lba, part.last_lba)))
        .collect()
}

#[test]
fn an_image_that_fits_its_disk_is_left_alone() {
    for block_size in [512, 4096] {
        let mut disk = grown_disk(block_size, 0);
        // The other implementation leaves room at the end, which is taken once.
        if let Some(first) = plan(&mut disk) {
            apply(&mut disk, &first.steps).unwrap();
        }
        assert_eq!(plan(&mut disk), None);
    }
}

#[test]
fn state_takes_the_room_and_nothing_else_moves() {
    for block_size in [512, 4096] {
        for more in [MIB, 5 * MIB + 4096, 20 * MIB] {
            let mut disk = grown_disk(block_size, more);
            let before = read(&mut disk).unwrap();
            let plan = plan(&mut disk).unwrap();
            apply(&mut disk, &plan.steps).unwrap();
            let after = read(&mut disk).unwrap();
            assert!(after.is_whole());
            assert_eq!(before.disk_guid, after.disk_guid);
            for (old, new) in before.partitions.iter().zip(&after.partitions) {
                if old.label == "state" {
                    assert_eq!((old.start, old.number), (new.start, new.number));
                    let end = new.start + new.size;
                    assert_eq!(end % MIB, 0);
                    assert!(
                        end + 2 * MIB > disk.size(),
                        "{block_size} {more}: {end} of {}",
                        disk.size()
                    );
                    assert_eq!(plan.state.as_ref(), Some(new));
                } else {
                    assert_eq!(old, new);
                }
            }
            assert_eq!(strictly(&disk).len(), 9);
            assert_eq!(
                crate::plan(&mut disk),
                None,
                "a second run has nothing to do"
            );
        }
    }
}

#[test]
fn the_first_sector_is_never_written() {
    let mut disk = grown_disk(512, 5 * MIB);
    let plan = plan(&mut disk).unwrap();
    apply(&mut disk, &plan.steps).unwrap();
    assert!(
        disk.log
            .iter()
            .all(|entry| !matches!(entry, Logged::Write(0, _)))
    );
}

#[test]
fn every_power_cut_leaves_a_table_and_the_next_start_ends_well() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut states = 0;
    for block_size in [512u32, 4096] {
        let start = grown_disk(block_size, 5 * MIB);
        let mut done = start.clone();
        let plan = plan(&mut done).unwrap();
        apply(&mut done, &plan.steps).unwrap();
        let end = strictly(&done);
        let log = done.log.clone();
        for cut in 0..=log.len() {
            for try_number in 0..12 {
                let mut disk = start.clone();
                // Everything up to the last flush before the cut is there; of what follows, any sector may be old, new
                // or torn.
                let durable = log[..cut]
                    .iter()
                    .rposition(|entry| matches!(entry, Logged::Flush))
                    .unwrap_or(0);
                for (index, entry) in log[..cut].iter().enumerate() {
                    let Logged::Write(at, bytes) = entry else {
                        continue;
                    };
                    for (number, sector) in bytes.chunks(block_size as usize).enumerate() {
                        let from = at + number * block_size as usize;
                        let to = &mut disk.bytes[from..from + sector.len()];
                        match (index < durable, try_number, next() % 3) {
                            (true, ..) | (_, 0, _) | (_, _, 0) => to.copy_from_slice(sector),
                            (_, _, 1) => {}
                            _ => to.fill_with(|| next() as u8),
                        }
                    }
                }
                let table = read(&mut disk).unwrap();
                assert_eq!(table.partitions.len(), 9, "cut {cut}");
                // The start after the cut may itself be cut; then it ends.
                if let Some(again) = plan_growth(&table).unwrap() {
                    let part = next() as usize % (again.steps.len() + 1);
                    apply(&mut disk, &again.steps[..part]).unwrap();
                    if let Some(last) = crate::plan(&mut disk) {
                        apply(&mut disk, &last.steps).unwrap();
                    }
                }
                assert_eq!(strictly(&disk), end, "cut {cut}");
                states += 1;
            }
        }
    }
    assert!(states > 200, "{states}");
}

#[test]
fn each_copy_is_restored_from_the_other() {
    for block_size in [512usize, 4096] {
        let mut disk = grown_disk(block_size as u32, 5 * MIB);
        let first = plan(&mut disk).unwrap();
        apply(&mut disk, &first.steps).unwrap();
        let good = disk.bytes.clone();
        let end = good.len();
        for (from, to, primary) in [
            (block_size, 2 * block_size, true),
            (2 * block_size, 3 * block_size, true),
            (end - block_size, end, false),
        ] {
            let mut damaged = Memory::new(good.clone(), block_size as u32);
            damaged.bytes[from..to].fill(0xff);
            let repair = plan(&mut damaged).unwrap();
            let which = if primary { "primary" } else { "backup" };
            assert_eq!(repair.restores, [format!("the {which} partition table")]);
            apply(&mut damaged, &repair.steps).unwrap();
            assert_eq!(damaged.bytes, good);
        }
    }
}

#[test]
fn a_protective_mbr_that_firmware_would_not_take_is_written_again() {
    for block_size in [512, 4096] {
        let mut disk = grown_disk(block_size, 5 * MIB);
        let first = plan(&mut disk).unwrap();
        assert!(first.restores.is_empty());
        apply(&mut disk, &first.steps).unwrap();
        let good = disk.bytes;
        // Bootable flag, type, start, signature.
        for at in [446, 450, 454, 510] {
            let mut disk = Memory::new(good.clone(), block_size);
            disk.bytes[at] ^= 4;
            let repair = plan(&mut disk).unwrap();
            assert_eq!(repair.restores, ["the protective MBR"]);
            apply(&mut disk, &repair.steps).unwrap();
            strictly(&disk);
            assert!(plan(&mut disk).is_none());
        }
        // Code that nobody runs, a size that nobody looks at.
        for at in [0, 458] {
            let mut disk = Memory::new(good.clone(), block_size);
            disk.bytes[at] ^= 4;
            assert!(plan(&mut disk).is_none());
        }
    }
}

#[test]
fn a_copy_that_cannot_be_read_is_like_one_that_is_damaged() {
    for block_size in [512, 4096] {
        let mut disk = grown_disk(block_size, 0);
        let wanted = read(&mut disk).unwrap().partitions;
        let block = u64::from(block_size);
        let end = disk.size();
        for bad in [block..2 * block, 2 * block..3 * block, end - block..end] {
            disk.bad_reads = Some(bad.clone());
            let table = read(&mut disk).unwrap();
            assert!(!table.is_whole() && table.partitions == wanted);
        }
        disk.bad_reads = Some(0..end);
        assert!(matches!(
            read(&mut disk),
            Err(GptError::NoTable {
                primary: Defect::Unreadable(_),
                backup: Defect::Unreadable(_)
            })
        ));
    }
}

#[test]
fn a_partition_in_the_place_of_the_table_is_not_written_over() {
    let mut disk = Memory::new(image(512), 512);
    // The entries lie elsewhere, and the first partition begins at block 3: nothing forbids it.
    let far = 64 * 512;
    let mut entries = disk.bytes[1024..][..128 * 128].to_vec();
    entries[32..40].copy_from_slice(&3_u64.to_le_bytes());
    disk.bytes[far..][..entries.len()].copy_from_slice(&entries);
    let crc = |bytes: &[u8]| crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes);
    let header = &mut disk.bytes[512..][..92];
    header[72..80].copy_from_slice(&64_u64.to_le_bytes());
    header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
    header[16..20].fill(0);
    let sealed = crc(header);
    header[16..20].copy_from_slice(&sealed.to_le_bytes());
    disk.bytes.resize(disk.bytes.len() + (1 << 20), 0);
    let table = read(&mut disk).unwrap();
    assert!(matches!(plan_growth(&table), Err(GptError::Overlap(1))));
}

#[test]
fn a_disk_without_a_table_and_one_too_small_are_refused() {
    let mut empty = Memory::new(vec![0; 1 << 20], 512);
    let (primary, backup) = (Defect::Signature, Defect::Signature);
    assert_eq!(
        read(&mut empty).unwrap_err(),
        GptError::NoTable { primary, backup }
    );
    let mut image = image(512);
    image.truncate(9 * MIB as usize);
    let mut small = Memory::new(image, 512);
    let table = read(&mut small).unwrap();
    assert!(matches!(
        plan_growth(&table),
        Err(GptError::DiskTooSmall { .. })
    ));
}

/// Two partitions, the second with the number 3.
fn two() -> [Partition; 2] {
    [(1, "esp-a", 2, 1), (3, "boot-a", 3, 2)].map(|(number, label, start, size)| Partition {
        number,
        label: label.into(),
        type_guid: TYPE_BOOT,
        guid: Guid([number as u8; 16]),
        start: start * MIB,
        size: size * MIB,
    })
}

/// A new disk of 6 MiB with these.
fn made(partitions: &[Partition], block_size: u32) -> Memory {
    let mut disk = Memory::new(vec![0; 6 * MIB as usize], block_size);
    let steps = create(Guid([7; 16]), block_size, disk.size(), partitions).unwrap();
    apply(&mut disk, &steps).unwrap();
    disk
}

/// The same disk with its primary copy alone.
fn primary_alone(mut disk: Memory) -> Memory {
    let end = disk.bytes.len();
    disk.bytes[end - disk.block_size as usize..].fill(0);
    disk
}

#[test]
fn what_is_made_is_read_by_us_and_by_the_other_implementation() {
    for block_size in [512, 4096] {
        let mut disk = made(&two(), block_size);
        let table = read(&mut disk).unwrap();
        assert!(table.is_whole() && plan_growth(&table).unwrap().is_none());
        assert_eq!(table.disk_guid, Guid([7; 16]));
        assert_eq!(table.partitions, two());
        let blocks = MIB / u64::from(block_size);
        let found = strictly(&disk);
        assert_eq!(found["esp-a"], (2 * blocks, 3 * blocks - 1));
        assert_eq!(found["boot-a"], (3 * blocks, 5 * blocks - 1));
    }
}

#[test]
fn the_protective_mbr_has_the_disks_size() {
    // Of 7 MiB and 512 bytes, of 3 TiB and 512, of 512 GiB and 4096: the record as `gpt_disk_types` writes it, but for
    // the size of what is too large, which is all ones by the specification.
    let records = [
        (512, 7 * MIB, "00000200eee3230001000000ff370000"),
        (512, 3 << 40, "00000200eeffffff01000000ffffffff"),
        (4096, 1 << 39, "00000200eeffffff01000000ffffff07"),
    ];
    for (block_size, size, record) in records {
        let steps = create(Guid([7; 16]), block_size, size, &[]).unwrap();
        let Step::Write { offset: 0, bytes } = &steps[0] else {
            panic!("{:?}", steps[0]);
        };
        let hex: String = bytes[446..462].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, record);
        assert!(bytes[..446].iter().chain(&bytes[462..510]).all(|b| *b == 0));
        assert_eq!(bytes[510..512], [0x55, 0xaa]);
    }
}

#[test]
fn what_no_entry_can_describe_is_refused() {
    let made = |change: fn(&mut Partition)| {
        let mut partitions = two();
        change(&mut partitions[1]);
        create(Guid([7; 16]), 4096, 6 * MIB, &partitions).unwrap_err()
    };
    assert_eq!(made(|it| it.number = 0), GptError::Entry(0));
    assert_eq!(made(|it| it.number = 129), GptError::Entry(129));
    assert_eq!(made(|it| it.start += 512), GptError::Entry(3));
    assert_eq!(made(|it| it.size = 0), GptError::Entry(3));
    assert_eq!(made(|it| it.label = "x".repeat(37)), GptError::Entry(3));
    assert_eq!(made(|it| it.start = 4096), GptError::Overlap(3));
    let too_large = made(|it| it.size = 3 * MIB);
    assert!(matches!(too_large, GptError::DiskTooSmall { .. }));
    let none = create(Guid([7; 16]), 512, 60 * 512, &[]);
    assert_eq!(none, Err(GptError::NoRoom));
    for size in [0, 256, 1000, 8192] {
        let made = create(Guid([7; 16]), size, MIB, &[]);
        assert_eq!(made, Err(GptError::BlockSize(size)));
    }
}

#[test]
fn every_flipped_bit_of_a_copy_is_refused() {
    let mut disk = primary_alone(made(&two(), 512));
    let header = (512..512 + 92).map(|at| (at, false));
    let entries = (1024..1024 + 4 * 128).chain([1024 + 128 * 128 - 1]);
    for (at, is_entry) in header.chain(entries.map(|at| (at, true))) {
        for bit in 0..8 {
            disk.bytes[at] ^= 1 << bit;
            let Err(GptError::NoTable { primary, .. }) = read(&mut disk) else {
                panic!("bit {bit} of byte {at}");
            };
            assert_eq!(primary == Defect::EntriesChecksum, is_entry, "byte {at}");
            disk.bytes[at] ^= 1 << bit;
        }
    }
    assert!(read(&mut disk).is_ok());
}

#[test]
fn a_label_leads_to_one_partition_that_ends_on_the_disk() {
    let mut disk = made(&two(), 512);
    let mut table = read(&mut disk).unwrap();
    assert_eq!(table.find("boot-a").unwrap().start, 3 * MIB);
    let missing = table.find("boot-b").unwrap_err();
    assert_eq!(missing, FindError::Missing("boot-b".into()));
    table.blocks = 5 * MIB / 512 - 1;
    let beyond = table.find("boot-a").unwrap_err();
    assert_eq!(beyond, FindError::BeyondDisk("boot-a".into()));
    table.partitions.push(table.partitions[1].clone());
    let ambiguous = table.find("boot-a").unwrap_err();
    assert_eq!(ambiguous, FindError::Ambiguous("boot-a".into()));
}

#[test]
fn a_header_says_what_is_wrong_with_it() {
    let good = primary_alone(made(&two(), 512));
    for (at, value, defect) in [
        (12, 96, Defect::HeaderSize(96)),
        (24, 7, Defect::OtherBlock(7)),
        (84, 256, Defect::EntrySize(256)),
        (80, 513, Defect::EntryCount(513)),
        (80, 0, Defect::EntryCount(0)),
        (40, 1 << 30, Defect::UsableBlocks),
        (72, 1, Defect::Place),
        (72, 1 << 30, Defect::Place),
    ] {
        let mut disk = good.clone();
        let header = &mut disk.bytes[512..][..92];
        header[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        header[16..20].fill(0);
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        let Err(GptError::NoTable { primary, .. }) = read(&mut disk) else {
            panic!("{defect}");
        };
        assert_eq!(primary, defect);
    }
    let mut none = Memory::new(vec![0; 512], 512);
    let (primary, backup) = (Defect::Place, Defect::Place);
    let empty = read(&mut none).unwrap_err();
    assert_eq!(empty, GptError::NoTable { primary, backup });
}
