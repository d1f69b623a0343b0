//! The table moves to the end of a larger disk, whatever happens on the way.

use std::collections::BTreeMap;
use std::io::Cursor;

use boot_core::{Device, layout};
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::LINUX_FS;
use initrd::gpt::{GptError, Plan, apply, plan_growth, read};

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
            apply(&mut disk, &first).unwrap();
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
            apply(&mut disk, &plan).unwrap();
            let after = read(&mut disk).unwrap();
            assert!(after.is_whole());
            assert_eq!(before.disk_guid(), after.disk_guid());
            for (old, new) in before.partitions().iter().zip(after.partitions()) {
                if old.label == "state" {
                    assert_eq!((old.start, old.number), (new.start, new.number));
                    let end = new.start + new.size;
                    assert_eq!(end % MIB, 0);
                    assert!(
                        end + 2 * MIB > disk.size(),
                        "{block_size} {more}: {end} of {}",
                        disk.size()
                    );
                    assert_eq!(plan.state.as_ref(), Some(&new));
                } else {
                    assert_eq!(*old, new);
                }
            }
            assert_eq!(strictly(&disk).len(), 9);
            assert_eq!(
                super::growing::plan(&mut disk),
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
    apply(&mut disk, &plan).unwrap();
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
        apply(&mut done, &plan).unwrap();
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
                assert_eq!(table.partitions().len(), 9, "cut {cut}");
                // The start after the cut may itself be cut; then it ends.
                if let Some(again) = plan_growth(&table).unwrap() {
                    let part = next() as usize % (again.steps.len() + 1);
                    let half = Plan {
                        steps: again.steps[..part].to_vec(),
                        ..again
                    };
                    apply(&mut disk, &half).unwrap();
                    if let Some(last) = super::growing::plan(&mut disk) {
                        apply(&mut disk, &last).unwrap();
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
        apply(&mut disk, &first).unwrap();
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
            apply(&mut damaged, &repair).unwrap();
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
        apply(&mut disk, &first).unwrap();
        let good = disk.bytes;
        // Bootable flag, type, start, signature.
        for at in [446, 450, 454, 510] {
            let mut disk = Memory::new(good.clone(), block_size);
            disk.bytes[at] ^= 4;
            let repair = plan(&mut disk).unwrap();
            assert_eq!(repair.restores, ["the protective MBR"]);
            apply(&mut disk, &repair).unwrap();
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
        let wanted = read(&mut disk).unwrap().partitions();
        let block = u64::from(block_size);
        let end = disk.size();
        for bad in [block..2 * block, 2 * block..3 * block, end - block..end] {
            disk.bad_reads = Some(bad.clone());
            let table = read(&mut disk).unwrap();
            assert!(!table.is_whole() && table.partitions() == wanted);
        }
        disk.bad_reads = Some(0..end);
        assert!(matches!(read(&mut disk), Err(GptError::Device { .. })));
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
    assert!(matches!(read(&mut empty), Err(GptError::None)));
    let mut image = image(512);
    image.truncate(9 * MIB as usize);
    let mut small = Memory::new(image, 512);
    let table = read(&mut small).unwrap();
    assert!(matches!(
        plan_growth(&table),
        Err(GptError::DiskTooSmall { .. })
    ));
}
