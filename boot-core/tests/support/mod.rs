//! Arbitrary records and disks.
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(unreachable_pub)]

use boot_core::{
    Device as _, Digest, Nonce, Slot, Target,
    floor::{Floors, Level},
    manifest::Kind,
    record::{Record, SlotContents, SlotEntry},
    store::{COPIES, PARTITION_SIZE},
    test_support::{Image, Machine, MemoryDevice, Signers, TestKey},
    types::NUMBERS_END,
};
use crc::{CRC_32_ISO_HDLC, Crc};
use proptest::prelude::*;

/// 48 cases a property, or as many as PROPTEST_CASES says.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").map_or(48, |cases| cases.parse().unwrap());
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

/// What the image numbered `number` puts into a record. Small numbers are on some disks; 0 is nothing.
pub(crate) fn contents(number: u8, security_version: u64) -> SlotContents {
    SlotContents {
        version: format!("{number}").parse().unwrap(),
        level: Level::new(security_version, 1),
        digest: Digest([number; 32]),
    }
}

/// A slot that was marked good.
pub(crate) fn good(contents: SlotContents, priority: u8) -> SlotEntry {
    let mut entry = SlotEntry::of(contents);
    (entry.successful, entry.priority) = (true, priority);
    entry
}

/// A slot that was not.
pub(crate) fn trial(contents: SlotContents, priority: u8, tries: u8) -> SlotEntry {
    let mut entry = SlotEntry::of(contents);
    (entry.priority, entry.tries) = (priority, tries);
    entry
}

pub(crate) fn block_size() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![512, 4096])
}

pub(crate) fn target() -> impl Strategy<Value = Target> {
    prop::sample::select(Target::ALL.to_vec())
}

/// Digests are those of [`Disk::sound`]'s images as often as not, so that arbitrary records and disks meet.
fn entry(slot: Slot) -> impl Strategy<Value = SlotEntry> {
    let known = Disk::sound().contents(slot);
    let image = prop_oneof![
        3 => Just(known),
        1 => (1_u8..5, 0_u64..5).prop_map(|(number, sv)| contents(number, sv)),
    ];
    let fields = (
        0_u8..=2,
        0_u8..=7,
        any::<bool>(),
        prop_oneof![0_u16..8, any::<u16>()],
    );
    prop_oneof![
        1 => Just(SlotEntry::default()),
        6 => (image, fields).prop_map(|(contents, (priority, tries, successful, streak))| {
            let mut entry = trial(contents, priority, tries);
            (entry.successful, entry.failure_streak) = (successful, streak);
            entry
        }),
    ]
}

/// Offsets and lengths of the bytes that version 1 does not use.
const RESERVED: [(usize, usize); 6] = [(26, 6), (67, 1), (70, 2), (163, 1), (166, 2), (272, 240)];

/// Those bytes.
pub(crate) fn reserved(record: &Record) -> Vec<u8> {
    let bytes = record.encode();
    RESERVED
        .iter()
        .flat_map(|(at, len)| bytes[*at..at + len].to_vec())
        .collect()
}

fn with_reserved(record: &Record, fill: u8) -> Record {
    let mut bytes = record.encode();
    for (at, len) in RESERVED {
        bytes[at..at + len].fill(fill);
    }
    bytes[12..16].fill(0);
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Record::decode(&bytes).unwrap()
}

/// Floors of security versions.
pub(crate) fn floors(system: u64, recovery: u64) -> Floors {
    Floors {
        system: Level::new(system, 0),
        recovery: Level::new(recovery, 0),
    }
}

/// A floor around what is on disks.
fn level() -> impl Strategy<Value = Level> {
    (0_u64..6, 0_u64..4).prop_map(|(version, serial)| Level::new(version, serial))
}

/// Any record that decodes, with a sequence number that leaves room.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let head = (
        10_u64..NUMBERS_END - 2,
        prop::option::of(target()),
        prop::option::of(target()),
    );
    let floors = (level(), level(), any::<[u8; 16]>(), any::<u8>());
    (head, floors, entry(Slot::A), entry(Slot::B)).prop_map(|(head, floors, a, b)| {
        let (sequence, last_tried, one_shot) = head;
        let (system, recovery, nonce, fill) = floors;
        let mut record = Record::empty();
        record.sequence = sequence;
        (record.last_tried, record.one_shot) = (last_tried, one_shot);
        record.floors = Floors { system, recovery };
        record.nonce = Nonce(nonce);
        (record.a, record.b) = (a, b);
        with_reserved(&record, fill)
    })
}

/// The same record with another sequence number.
pub(crate) fn numbered(mut record: Record, sequence: u64) -> Record {
    record.sequence = sequence;
    record
}

/// A `boot-state` partition with these copies.
pub(crate) fn boot_state(block_size: u32, copies: &[Option<Record>; 2]) -> MemoryDevice {
    let mut device = MemoryDevice::new(PARTITION_SIZE, block_size);
    for (offset, record) in COPIES.into_iter().zip(copies) {
        if let Some(record) = record {
            let mut block = record.encode().to_vec();
            block.resize(block_size as usize, 0);
            device.write_at(offset, &block).unwrap();
        }
    }
    device.writes.clear();
    device
}

/// How a slot on a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Sound,
    BadUki,
    NoHeader,
    WrongKey,
    OtherSlot,
    BadEnvelope,
    Missing,
}

fn health() -> impl Strategy<Value = Health> {
    use Health::*;
    prop_oneof![
        3 => Just(Sound),
        2 => prop::sample::select(vec![BadUki, NoHeader, WrongKey, OtherSlot, BadEnvelope, Missing]),
    ]
}

/// A disk: in each of A, B and recovery an image of a security version, sound or not.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) health: [Health; 3],
    pub(crate) security_versions: [u64; 3],
}

impl Disk {
    /// Everything verifies: A has security version 2, B 3, recovery 1.
    pub(crate) fn sound() -> Self {
        Self {
            health: [Health::Sound; 3],
            security_versions: [2, 3, 1],
        }
    }

    fn image(&self, target: Target, signers: Signers) -> Image {
        let (kind, version, at) = match target {
            Target::A => (Kind::System, "1.0.1", 0),
            Target::B => (Kind::System, "1.0.2", 1),
            Target::Recovery => (Kind::Recovery, "1.0.0", 2),
        };
        let uki: Vec<u8> = version.bytes().cycle().take(5000).collect();
        let security_version = self.security_versions[at];
        let manifest = boot_core::test_support::manifest(kind, version, security_version, &uki);
        Image::signed(manifest, uki, signers)
    }

    /// What the image in `slot` puts into a record.
    pub(crate) fn contents(&self, slot: Slot) -> SlotContents {
        self.image(slot.into(), Signers::default()).contents()
    }

    /// The highest security version in A and B.
    pub(crate) fn highest(&self) -> u64 {
        self.security_versions[0].max(self.security_versions[1])
    }

    /// What verifies, above a floor that the firmware keeps; sorted.
    pub(crate) fn startable(&self, floor: u64) -> Vec<Target> {
        let verifies = |(index, _): &(usize, Target)| {
            self.health[*index] == Health::Sound && self.security_versions[*index] >= floor
        };
        Target::ALL
            .into_iter()
            .enumerate()
            .filter(verifies)
            .map(|(_, target)| target)
            .collect()
    }

    fn device(&self, target: Target, health: Health) -> Option<MemoryDevice> {
        let usual = Signers::default();
        let image = self.image(target, usual);
        let mut device = image.device(target, 512);
        match health {
            Health::Sound => {}
            Health::BadUki => device.bytes[Image::UKI_OFFSET as usize + 4999] ^= 0x10,
            Health::NoHeader => device.bytes[..512].fill(0),
            Health::BadEnvelope => device.bytes[4096 + 100] ^= 1,
            Health::WrongKey => {
                let signers = Signers {
                    signing: TestKey(3),
                    ..usual
                };
                let mut wrong = self.image(target, signers);
                wrong.keyring = image.keyring;
                device = wrong.device(target, 512);
            }
            Health::OtherSlot => device = image.device(target.next_in_round(), 512),
            Health::Missing => return None,
        }
        Some(device)
    }
}

/// Arbitrary disks.
pub(crate) fn disk() -> impl Strategy<Value = Disk> {
    let versions = prop_oneof![Just([2, 3, 1]), prop::array::uniform3(0_u64..5)];
    (prop::array::uniform3(health()), versions).prop_map(|(health, security_versions)| Disk {
        health,
        security_versions,
    })
}

/// A machine with this disk and record.
pub(crate) fn machine(disk: &Disk, record: Option<&Record>) -> Machine {
    let mut machine = Machine::new(512, [None; 3]);
    for (target, health) in Target::ALL.into_iter().zip(disk.health) {
        *machine.slot_mut(target) = disk.device(target, health);
    }
    if let Some(record) = record {
        machine.set_record(record);
    }
    machine
}
