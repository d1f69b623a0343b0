//! The loader on an ESP, as `bootctl` reads it: docs/formats/esp.md.
//!
//! - whatever was changed, reading comes to an end, and what is read is a loader's size;
//! - what is written is what is read.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use boot_core::esp::{LOADER_MAX, read_loader, write};
use boot_core::{Architecture, Device as _};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::Flip;
use sternpost_fuzz::disk::Sparse;

const X86: Architecture = Architecture::X86_64;
const SECTOR: usize = 512;
const FAT: u64 = 32;

/// A small one, its loader, and the sectors that lead to it: the boot sector, the FAT's first, the three directories.
static WRITTEN: LazyLock<(Sparse, Vec<u8>, Vec<u64>)> = LazyLock::new(|| {
    let loader: Vec<u8> = (0..3000).map(|at| (at / 11) as u8).collect();
    let mut disk = Sparse::new(34 << 20, SECTOR as u32);
    write(&mut disk, &loader, X86).expect("there is room");
    let boot = sector(&mut disk, 0);
    let of_a_fat = u32::from_le_bytes(*boot[36..].first_chunk().expect("it is there"));
    let data = FAT + 2 * u64::from(of_a_fat);
    let cluster = u64::from(boot[13]);
    let directories = (0..3).map(|index| data + index * cluster);
    let leading = [0, FAT].into_iter().chain(directories).collect();
    (disk, loader, leading)
});

fn sector(disk: &mut Sparse, at: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    disk.read_at(at * SECTOR as u64, &mut bytes)
        .expect("it is within the disk");
    bytes
}

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    Byte(u8, Flip),
    /// A number, where one may stand.
    Number(u8, u8, u32),
    Sector(u8, &'a [u8]),
    Unreadable(u8),
}

fuzz_target!(|changes: Vec<Change<'_>>| {
    let (written, loader, leading) = &*WRITTEN;
    let mut disk = written.clone();
    for change in changes.iter().take(8) {
        let (Change::Byte(which, _)
        | Change::Number(which, ..)
        | Change::Sector(which, _)
        | Change::Unreadable(which)) = change;
        let at = leading[usize::from(*which) % leading.len()];
        if matches!(change, Change::Unreadable(_)) {
            disk.bad.push(at);
        }
        if disk.bad.contains(&at) {
            continue;
        }
        let mut bytes = sector(&mut disk, at);
        match change {
            Change::Byte(_, flip) => flip.apply(&mut bytes),
            Change::Number(_, place, value) => {
                let place = usize::from(*place) * 2 % (SECTOR - 4);
                bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
            }
            Change::Sector(_, with) => {
                let length = with.len().min(SECTOR);
                bytes[..length].copy_from_slice(&with[..length]);
            }
            Change::Unreadable(_) => {}
        }
        disk.put(at * SECTOR as u64, &bytes);
    }
    match read_loader(&mut disk, X86) {
        Ok(read) => {
            assert!((1..=LOADER_MAX).contains(&read.len()));
            assert!(!changes.is_empty() || read == *loader);
        }
        Err(error) => assert!(!changes.is_empty(), "{error}"),
    }
});
