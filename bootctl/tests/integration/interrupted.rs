//! An installation that ends at each of its reads, writes and flushes in turn: the disk is unplugged, the
//! power is gone, or the disk refuses to write one of its blocks. What ran before still runs, and the same
//! command goes on.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use boot_core::record::{Record, SlotStatus};
use boot_core::store::{BootState, EVENT_RING, QUARANTINE_RING};
use boot_core::test_support::{MemoryDevice, MemoryError};
use boot_core::verify::would_start;
use boot_core::{Device, Nonce, Slot, Target, transition};
use bootctl::boot::admission::Admission;
use bootctl::boot::control::{Context, Control};
use bootctl::boot::slot_check::SlotDevices;
use bootctl::failure;
use bootctl::failure::Code;
use bootctl::install::{self, Options};
use bootctl::progress::Progress;
use bootctl::source::Source;

use crate::fixture::{Image, trust};

/// A device that shares with others how many operations are left before all of them are gone.
#[derive(Clone)]
pub(crate) struct Failing {
    inner: MemoryDevice,
    left: Rc<Cell<usize>>,
    /// Whether reads and flushes count, and fail, as well as writes.
    all_count: bool,
}

impl Failing {
    /// How many operations are left, for devices that fail together.
    pub(crate) fn counter() -> Rc<Cell<usize>> {
        Rc::new(Cell::new(usize::MAX))
    }

    /// A device whose writes count.
    pub(crate) fn new(inner: MemoryDevice, left: &Rc<Cell<usize>>) -> Self {
        Self {
            inner,
            left: left.clone(),
            all_count: false,
        }
    }

    /// Does one more operation, if any is left.
    fn next(&self, at: u64) -> Result<(), MemoryError> {
        let left = self.left.get().checked_sub(1);
        left.map(|left| self.left.set(left))
            .ok_or(MemoryError::Io(at))
    }
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
        if self.all_count {
            self.next(offset)?;
        }
        self.inner.read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), MemoryError> {
        if self.left.get() == 1 {
            // The last one is torn: half of it arrives.
            let half = buf.len() / 2 / 512 * 512;
            self.left.set(0);
            self.inner.write_at(offset, &buf[..half])?;
        }
        self.next(offset)?;
        self.inner.write_at(offset, buf)?;
        let written = offset..offset + buf.len() as u64;
        // Once it has been written, a sector that could not be read can be.
        self.inner
            .bad_reads
            .take_if(|bad| written.contains(&bad.start));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MemoryError> {
        if self.all_count {
            self.next(0)?;
        }
        self.inner.flush()
    }
}

pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Source for Bytes {
    fn name(&self) -> &str {
        "memory"
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> bootctl::failure::Result<()> {
        let offset = offset as usize;
        let bytes = self.0.get(offset..offset + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| failure::Failure::source("too short"))?);
        Ok(())
    }

    fn ends_at(&mut self, offset: u64) -> bootctl::failure::Result<bool> {
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
    fn new(block_size: u32, all_count: bool) -> Self {
        let left = Rc::new(Cell::new(usize::MAX));
        let device = |size| Failing {
            inner: MemoryDevice::new(size, block_size),
            left: left.clone(),
            all_count,
        };
        let mut disk = Self {
            state: device(4 << 20),
            boot: device(2 << 20),
            root: device(1 << 20),
            left: left.clone(),
        };
        let [running, old] = ["1.0", "0.9"].map(|version| {
            let image = Image::small(version);
            image.contents()
        });
        let record = transition::first_image(running);
        let record = transition::mark_good(&record, Slot::A, &running.digest, Target::A).unwrap();
        let record = transition::stage(&record, Slot::B, old, Target::A).unwrap();
        let record = transition::mark_good(&record, Slot::B, &old.digest, Target::B).unwrap();
        BootState::new(&mut disk.state).commit(&record).unwrap();
        disk
    }

    fn install(&mut self, image: &Image) -> bootctl::failure::Result<()> {
        let context = Context {
            booted: Target::A,
            nonce: Nonce::ZERO,
            now: || 1_800_000_000,
        };
        let admission = Admission::from(trust());
        let options = Options {
            admission: &admission,
            slot: Slot::B,
            force: false,
            scratch: PathBuf::from("/nowhere"),
            unwanted: &[],
        };
        install::install(
            &mut Control::new(&mut self.state, context),
            &mut SlotDevices {
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

    fn record(&mut self) -> Record {
        BootState::new(&mut self.state).load().record.unwrap()
    }

    /// Slot A is good, and slot B what it was, empty, or all of `image`.
    fn nothing_is_lost(&mut self, image: &Image) {
        let record = self.record();
        assert!(record.a.is_good());
        match record.b.status() {
            // Not touched yet, or complete and verified: never anything between.
            SlotStatus::Good => assert_ne!(record.b.digest, image.digest()),
            SlotStatus::Empty => {}
            SlotStatus::Staged => {
                would_start(&mut self.boot, Target::B, &trust(), &record).unwrap();
                let root = image.manifest.root.as_ref().unwrap();
                bootctl::boot::root_scan::check(&mut self.root, root).unwrap();
            }
            other => panic!("slot B is {other}"),
        }
    }

    fn is_staged(&mut self, image: &Image) {
        let record = self.record();
        assert!(record.a.is_good());
        assert_eq!(
            (record.b.status(), record.b.digest),
            (SlotStatus::Staged, image.digest())
        );
    }
}

#[test]
fn whichever_write_is_the_last_nothing_is_lost_and_it_goes_on() {
    for block_size in [512, 4096] {
        let ended_early = end_after(0.., || Disk::new(block_size, false));
        assert!(ended_early >= 8, "only {ended_early} writes");
    }
}

/// A share of the operations, another one for each size of blocks: most are reads, one much like the other.
#[test]
fn wherever_the_disk_is_unplugged_nothing_is_lost_and_it_goes_on() {
    for (first, block_size) in [(0, 512), (2, 4096)] {
        let operations = (first..).step_by(5);
        let ended_early = end_after(operations, || Disk::new(block_size, true));
        assert!(ended_early >= 10, "only {ended_early} times");
    }
}

/// Installs with each of these numbers of operations left until one is enough; how many were not.
fn end_after(numbers: impl Iterator<Item = usize>, disk: impl Fn() -> Disk) -> usize {
    let image = Image::small("2.0");
    let mut ended_early = 0;
    for operations in numbers {
        let mut disk = disk();
        disk.left.set(operations);
        let ended = disk.install(&image);
        disk.left.set(usize::MAX);
        disk.nothing_is_lost(&image);
        let Err(failure) = ended else {
            disk.is_staged(&image);
            break;
        };
        // A slot that cannot be read back does not verify; a disk that goes between the reads of the two copies of
        // the record leaves the older one, whose rules refuse.
        let known = [Code::Failed, Code::Verification, Code::Refused];
        assert!(known.contains(&failure.code), "{failure}");
        assert!(failure.next.is_some(), "{failure}");
        ended_early += 1;
        disk.install(&image).unwrap();
        disk.is_staged(&image);
    }
    ended_early
}

#[test]
fn whichever_block_cannot_be_written_nothing_is_lost_and_on_a_sound_disk_it_goes_on() {
    let image = Image::small("2.0");
    let mut sound = Disk::new(512, false);
    sound.install(&image).unwrap();
    let parts: [fn(&mut Disk) -> &mut MemoryDevice; 3] = [
        |disk| &mut disk.state.inner,
        |disk| &mut disk.boot.inner,
        |disk| &mut disk.root.inner,
    ];
    for part in parts {
        let writes = part(&mut sound).writes.clone();
        assert!(writes.len() >= 2, "{writes:?}");
        for (offset, length) in writes {
            let end = offset + length as u64;
            for block in [offset, end - 512] {
                let mut disk = Disk::new(512, false);
                part(&mut disk).bad_writes = Some(block..block + 512);
                match disk.install(&image) {
                    Err(failure) => {
                        assert_eq!(failure.code, Code::Failed, "{failure}");
                        assert!(failure.next.is_some(), "{failure}");
                    }
                    // History alone may have a gap.
                    Ok(()) => assert!((EVENT_RING..QUARANTINE_RING).contains(&block)),
                }
                disk.nothing_is_lost(&image);
                if std::ptr::eq(part(&mut disk), &raw const disk.state.inner) && block < EVENT_RING
                {
                    assert_eq!(
                        disk.record().b.status(),
                        SlotStatus::Good,
                        "given up for nothing"
                    );
                }
                part(&mut disk).bad_writes = None;
                disk.install(&image).unwrap();
                disk.is_staged(&image);
            }
        }
    }
}

#[test]
fn what_cannot_be_read_of_a_slot_is_written_anew() {
    let image = Image::small("2.0");
    let uki = boot_core::slot_header::UKI_OFFSET;
    for same_version in [false, true] {
        for (boot, root) in [(Some(uki), None), (None, Some(0)), (Some(uki), Some(8192))] {
            let mut disk = Disk::new(512, false);
            if same_version {
                disk.install(&image).unwrap();
            }
            let bad = |at: Option<u64>| at.map(|at| at..at + 512);
            disk.boot.inner.bad_reads = bad(boot);
            disk.root.inner.bad_reads = bad(root);
            disk.install(&image).unwrap();
            disk.is_staged(&image);
            disk.nothing_is_lost(&image);
        }
    }
}
