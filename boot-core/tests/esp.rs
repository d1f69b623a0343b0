//! An ESP: another implementation reads what is written, and wherever the power goes while one is written, firmware
//! finds the old loader, the new one, or no filesystem.
#![allow(clippy::unwrap_used)]

use std::io::{Cursor, Read as _};

use boot_core::esp::{self, EspError, LOADER_MAX};
use boot_core::test_support::{MemoryDevice, MemoryError};
use boot_core::{Architecture, Device};

const X86: Architecture = Architecture::X86_64;

/// As large as layout ab-1 has it.
fn device(block_size: u32) -> MemoryDevice {
    let size = if block_size == 512 {
        64 << 20
    } else {
        260 << 20
    };
    MemoryDevice::new(size, block_size)
}

fn loader(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ seed).collect()
}

/// What another implementation finds at the removable-media path.
fn found(bytes: &mut [u8], name: &str) -> Option<Vec<u8>> {
    let volume = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).ok()?;
    let mut file = volume
        .root_dir()
        .open_file(&format!("EFI/BOOT/{name}"))
        .ok()?;
    let mut loader = vec![];
    file.read_to_end(&mut loader).ok()?;
    Some(loader)
}

#[test]
fn another_implementation_reads_it_and_so_do_we() {
    for (architecture, name) in [
        (X86, "BOOTX64.EFI"),
        (Architecture::Aarch64, "BOOTAA64.EFI"),
    ] {
        for block_size in [512, 4096] {
            let mut device = device(block_size);
            for length in [1, 4096, 45_001] {
                let loader = loader(3, length);
                esp::write(&mut device, &loader, architecture).unwrap();
                assert_eq!(found(&mut device.bytes, name), Some(loader.clone()));
                let read = esp::read_loader(&mut device, architecture).unwrap();
                assert!(read == loader);
            }
        }
    }
    let mut device = device(512);
    esp::write(&mut device, &loader(1, 100), X86).unwrap();
    let other = esp::read_loader(&mut device, Architecture::Aarch64);
    assert_eq!(other, Err(EspError::NoLoader("BOOTAA64.EFI")));
}

#[test]
fn another_implementations_filesystem_is_read() {
    let mut device = device(512);
    let loader = loader(9, 70_000);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32);
    fatfs::format_volume(Cursor::new(&mut device.bytes), options).unwrap();
    {
        use std::io::Write as _;
        let volume =
            fatfs::FileSystem::new(Cursor::new(&mut device.bytes), fatfs::FsOptions::new())
                .unwrap();
        let root = volume.root_dir();
        root.create_dir("EFI").unwrap().create_dir("BOOT").unwrap();
        root.create_file("EFI/a long name that firmware does not look for")
            .unwrap();
        let mut file = root.create_file("EFI/BOOT/BOOTX64.EFI").unwrap();
        file.write_all(&loader).unwrap();
    }
    assert!(esp::read_loader(&mut device, X86).unwrap() == loader);
}

#[test]
fn the_last_cluster_which_is_beyond_the_first_65536_is_found() {
    let mut device = device(512);
    let loader = loader(4, 100);
    esp::write(&mut device, &loader, X86).unwrap();
    let fat_blocks = u32::from_le_bytes(device.bytes[36..40].try_into().unwrap()) as usize;
    let data = 32 + 2 * fat_blocks;
    let (near, far) = (5, device.bytes.len() / 512 - data + 1);
    let cluster = |number: usize| (data + number - 2) * 512;
    // The third entry of EFI/BOOT, which is cluster 4.
    let entry = cluster(4) + 2 * 32;
    let [low, high, upper, _] = u32::try_from(far).unwrap().to_le_bytes();
    device.bytes[entry + 26..entry + 28].copy_from_slice(&[low, high]);
    device.bytes[entry + 20] = upper;
    device.bytes[32 * 512 + far * 4..][..4].copy_from_slice(&0x0fff_ffff_u32.to_le_bytes());
    let (from, to) = (cluster(near), cluster(far));
    device.bytes.copy_within(from..from + 512, to);
    device.bytes[from..from + 512].fill(0);
    assert!(esp::read_loader(&mut device, X86).unwrap() == loader);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let mut small = MemoryDevice::new(32 << 20, 512);
    assert_eq!(esp::write(&mut small, &[1], X86), Err(EspError::TooSmall));
    let mut device = device(512);
    for length in [0, LOADER_MAX + 1] {
        let refused = esp::write(&mut device, &vec![0; length], X86);
        assert_eq!(refused, Err(EspError::Loader(length)));
    }
    assert!(small.writes.is_empty() && device.writes.is_empty());
}

#[test]
fn every_number_that_ends_a_chain_ends_it_and_nothing_after_the_end_is_followed() {
    let mut device = device(512);
    let loader = loader(5, 512);
    esp::write(&mut device, &loader, X86).unwrap();
    let fat = 32 * 512;
    // EFI/BOOT, and the loader, whose one cluster is full.
    for (cluster, next) in [(4, 0x0fff_fff8_u32), (5, 1)] {
        let entry = fat + cluster * 4;
        device.bytes[entry..entry + 4].copy_from_slice(&next.to_le_bytes());
    }
    assert!(esp::read_loader(&mut device, X86).unwrap() == loader);
}

#[test]
fn what_is_no_fat32_filesystem_is_not_taken_for_one() {
    let mut device = device(512);
    esp::write(&mut device, &loader(1, 100), X86).unwrap();
    let [signature, name, fat16, cluster, sector, fats] = [510, 82, 22, 13, 12, 16];
    let damage = [
        (signature, 0),
        (name, b'X'),
        (fat16, 1),
        (cluster, 0),
        (sector, 1),
        (fats, 0),
    ];
    for (at, value) in damage {
        let sound = std::mem::replace(&mut device.bytes[at], value);
        let found = esp::read_loader(&mut device, X86);
        assert_eq!(found, Err(EspError::NoFilesystem), "byte {at}");
        device.bytes[at] = sound;
    }
    assert!(esp::read_loader(&mut device, X86).is_ok());
}

#[test]
fn damage_is_said_and_never_followed_for_ever() {
    let mut device = device(512);
    assert_eq!(
        esp::read_loader(&mut device, X86),
        Err(EspError::NoFilesystem)
    );
    esp::write(&mut device, &loader(1, 2000), X86).unwrap();
    let fat = 32 * 512;
    // A file whose chain ends too early, leads into itself, or out of the partition.
    for (next, wanted) in [
        (0x0fff_ffff_u32, EspError::Damaged),
        (1, EspError::Damaged),
        (0x0fff_fff0, EspError::Damaged),
    ] {
        device.bytes[fat + 5 * 4..fat + 6 * 4].copy_from_slice(&next.to_le_bytes());
        assert_eq!(esp::read_loader(&mut device, X86), Err(wanted));
    }
    device.bytes[fat + 5 * 4] = 5;
    device.bytes[fat + 5 * 4 + 1..fat + 6 * 4].fill(0);
    assert_eq!(esp::read_loader(&mut device, X86).unwrap().len(), 2000);
    device.bad_reads = Some(0..512);
    assert_eq!(
        esp::read_loader(&mut device, X86),
        Err(EspError::Device(MemoryError::Io(0)))
    );
    device.bad_reads = None;
    device.stuck = Some(0..u64::MAX);
    let ignored = esp::write(&mut device, &loader(2, 2000), X86);
    assert!(matches!(ignored, Err(EspError::ReadBack(_))), "{ignored:?}");
}

/// A partition that keeps what was done to it.
struct Recording {
    inner: MemoryDevice,
    /// Sectors written between two flushes: offset, content.
    epochs: Vec<Vec<(usize, Vec<u8>)>>,
}

impl Device for Recording {
    type Error = MemoryError;

    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), MemoryError> {
        let size = self.inner.block_size as usize;
        let sectors = buf.chunks(size).zip((offset as usize..).step_by(size));
        let sectors = sectors.map(|(bytes, at)| (at, bytes.to_vec()));
        self.epochs.last_mut().unwrap().extend(sectors);
        self.inner.write_at(offset, buf)
    }

    fn flush(&mut self) -> Result<(), MemoryError> {
        self.epochs.push(vec![]);
        Ok(())
    }
}

/// Of each epoch: every prefix, every sector missing or alone or torn, and subsets by chance.
#[test]
fn wherever_the_power_goes_there_is_one_loader_or_no_filesystem() {
    for block_size in [512, 4096] {
        let (old, new) = (loader(1, 9000), loader(2, 12_000));
        let mut device = Recording {
            inner: device(block_size),
            epochs: vec![vec![]],
        };
        esp::write(&mut device, &old, X86).unwrap();
        let mut disk = device.inner.bytes.clone();
        device.epochs = vec![vec![]];
        esp::write(&mut device, &new, X86).unwrap();
        let epochs = std::mem::take(&mut device.epochs);
        assert_eq!(epochs.len(), 4, "three flushes");
        let mut seen = [0; 3];
        let mut random = 1_u64;
        for sectors in epochs {
            let mut cuts: Vec<Vec<usize>> = vec![];
            let count = sectors.len();
            // All but the first and last of the FATs are zeros: what holds for one of them holds for all.
            let telling: Vec<usize> = (0..count)
                .filter(|at| count < 200 || *at < 40 || at + 80 > count || at % 97 == 0)
                .collect();
            cuts.extend(telling.iter().map(|end| (0..*end).collect()));
            cuts.extend(telling.iter().map(|one| vec![*one]));
            cuts.extend(
                telling
                    .iter()
                    .map(|one| (0..count).filter(|at| at != one).collect()),
            );
            for _ in 0..100 {
                let kept = (0..count).filter(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    !random.is_multiple_of(3)
                });
                cuts.push(kept.collect());
            }
            for (number, cut) in cuts.iter().enumerate() {
                let saved: Vec<_> = sectors
                    .iter()
                    .map(|(at, it)| disk[*at..at + it.len()].to_vec())
                    .collect();
                for at in cut {
                    let (offset, bytes) = &sectors[*at];
                    disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
                }
                // Every third one ends in the middle of a sector.
                if let (0, Some((offset, bytes))) = (number % 3, cut.last().map(|at| &sectors[*at]))
                {
                    disk[offset + bytes.len() / 2..offset + bytes.len()].fill(0xa5);
                }
                match found(&mut disk, "BOOTX64.EFI") {
                    None => {
                        seen[0] += 1;
                        // No filesystem at all, rather than one that is damaged: firmware goes on to the other ESP.
                        let opened =
                            fatfs::FileSystem::new(Cursor::new(&mut disk), fatfs::FsOptions::new());
                        assert!(opened.is_err(), "cut {number} of {count} sectors");
                    }
                    Some(found) if found == old => seen[1] += 1,
                    Some(found) => {
                        assert!(
                            found == new,
                            "cut {number} of {count} sectors: half a loader"
                        );
                        seen[2] += 1;
                    }
                }
                for ((offset, _), bytes) in sectors.iter().zip(saved) {
                    disk[*offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
            for (offset, bytes) in &sectors {
                disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
        assert_eq!(found(&mut disk, "BOOTX64.EFI"), Some(new));
        assert!(seen.iter().all(|it| *it > 10), "{seen:?}");
    }
}
