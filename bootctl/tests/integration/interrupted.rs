//! An installation that ends at each of its writes in turn: the disk is unplugged, or the power is
//! gone. What ran before still runs, and the same command goes on.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use boot_core::record::SlotStatus;
use boot_core::store::BootState;
use boot_core::test_support::{MemoryDevice, MemoryError};
use boot_core::{Device, Nonce, Slot, Target, transition};
use bootctl::control::{Context, Control};
use bootctl::failure::{Code, Result};
use bootctl::install::{self, Options, Parts};
use bootctl::progress::Progress;
use bootctl::source::Source;
use bootctl::{failure, fallback};

use crate::fixture::{Image, noise, trust};

/// A device that shares with others how many writes are left.
#[derive(Clone)]
struct Failing {
    inner: MemoryDevice,
    left: Rc<Cell<usize>>,
}

impl Device for Failing {
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
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => {
                // Torn: half of it arrives.
                let half = buf.len() / 2 / 512 * 512;
                self.inner.write_at(offset, &buf[..half])?;
                return Err(MemoryError::Io(offset));
            }
        }
        self.inner.write_at(offset, buf)
    }

    fn flush(&mut self) -> Result<(), MemoryError> {
        self.inner.flush()
    }
}

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn name(&self) -> &str {
        "memory"
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let offset = offset as usize;
        let bytes = self.0.get(offset..offset + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| failure::Failure::source("too short"))?);
        Ok(())
    }

    fn ends_at(&mut self, offset: u64) -> Result<bool> {
        Ok(offset == self.0.len() as u64)
    }
}

struct Disk {
    state: Failing,
    boot: Failing,
    root: Failing,
    left: Rc<Cell<usize>>,
}

impl Disk {
    /// Slot A is good, slot B holds an older version that is good too.
    fn new(block_size: u32) -> Self {
        let left = Rc::new(Cell::new(usize::MAX));
        let device = |size| Failing {
            inner: MemoryDevice::new(size, block_size),
            left: left.clone(),
        };
        let mut disk = Self {
            state: device(4 << 20),
            boot: device(2 << 20),
            root: device(1 << 20),
            left: left.clone(),
        };
        let [running, old] = ["1.0", "0.9"].map(|version| {
            let image = small(version);
            image.manifest.slot_contents(image.digest())
        });
        let record = transition::first_image(running);
        let record = transition::mark_good(&record, Slot::A, &running.digest, Target::A).unwrap();
        let record = transition::stage(&record, Slot::B, old, Target::A).unwrap();
        let record = transition::mark_good(&record, Slot::B, &old.digest, Target::B).unwrap();
        BootState::new(&mut disk.state).commit(&record).unwrap();
        disk
    }

    fn install(&mut self, image: &Image) -> Result<()> {
        let context = Context {
            booted: Target::A,
            nonce: Nonce::ZERO,
            now: 1_800_000_000,
        };
        let trust = trust();
        let options = Options {
            trust: &trust,
            slot: Slot::B,
            force: false,
            scratch: PathBuf::from("/nowhere"),
        };
        install::install(
            &mut Control::new(&mut self.state, context),
            &mut Parts {
                boot: &mut self.boot,
                root: &mut self.root,
            },
            None,
            &mut Bytes(image.bundle()),
            &options,
            &Progress::silent(),
        )
        .map(|_| ())
    }
}

fn small(version: &str) -> Image {
    let mut image = Image::new(version);
    let seed = version.bytes().map(u64::from).sum();
    image.uki = noise(seed, 5000);
    image.root = noise(seed + 1, 3 * 4096);
    image.seal();
    image
}

#[test]
fn whichever_write_is_the_last_nothing_is_lost_and_it_goes_on() {
    let image = small("2.0");
    let digest = image.digest();
    for block_size in [512, 4096] {
        let mut ended_early = 0;
        for writes in 0.. {
            let mut disk = Disk::new(block_size);
            disk.left.set(writes);
            let ended = disk.install(&image);
            disk.left.set(usize::MAX);
            let record = BootState::new(&mut disk.state).load().record.unwrap();
            assert!(record.a.is_good(), "slot A after {writes} writes");
            match record.b.status() {
                // Not touched yet, or complete and verified: never anything between.
                SlotStatus::Good => assert_ne!(record.b.digest, digest),
                SlotStatus::Empty => {}
                SlotStatus::Staged => {
                    fallback::verify(&mut disk.boot, Target::B, &trust(), &record).unwrap();
                    let root = image.manifest.root.as_ref().unwrap();
                    bootctl::root_check::check(&mut disk.root, root).unwrap();
                }
                other => panic!("slot B is {other} after {writes} writes"),
            }
            let Err(failure) = ended else {
                assert_eq!(record.b.status(), SlotStatus::Staged);
                break;
            };
            assert_eq!(failure.code, Code::Failed, "{failure}");
            assert!(failure.next.is_some(), "{failure}");
            ended_early += 1;
            disk.install(&image).unwrap();
            let record = BootState::new(&mut disk.state).load().record.unwrap();
            assert_eq!(
                (record.b.status(), record.b.digest),
                (SlotStatus::Staged, digest)
            );
            assert!(record.a.is_good());
        }
        assert!(ended_early >= 8, "only {ended_early} writes");
    }
}
