//! The boot-state record: what has been tried, what worked, what comes next.
//!
//! 512 bytes, frozen at version 1. Builds of different years read and write it, so every byte that
//! this version does not use is kept as it was found. The record is not authenticated: it may only
//! choose among images that verify. Byte by byte: docs/formats/boot-state.md.

use core::cmp::Reverse;

use crate::{
    bytes::{self, STRUCTURE, field, put, u8_at, u16_at, u64_at},
    floor::{Floors, Level},
    slot::{Slot, Target},
    types::{Digest, KeyringSerial, NUMBERS_END, Nonce, SecurityVersion, Version},
};

/// Version of the record that this build reads and writes.
pub const FORMAT: u16 = 1;

/// Size of an encoded record in bytes.
pub const SIZE: usize = STRUCTURE;

/// Highest priority; what is activated gets it.
pub const MAX_PRIORITY: u8 = 2;

/// Most tries that a record can hold.
pub const MAX_TRIES: u8 = 7;

const MAGIC: [u8; 8] = *b"STRNPOST";
const ENTRY_SIZE: usize = 96;

/// Where the fields of a record lie.
mod at {
    pub(super) const FORMAT: usize = 8;
    pub(super) const LENGTH: usize = 10;
    pub(super) const CRC: usize = 12;
    pub(super) const SEQUENCE: usize = 16;
    pub(super) const LAST_TRIED: usize = 24;
    pub(super) const ONE_SHOT: usize = 25;
    pub(super) const HEAD: usize = 26;
    pub(super) const FLOOR: usize = 32;
    pub(super) const RECOVERY_FLOOR: usize = 40;
    pub(super) const NONCE: usize = 48;
    pub(super) const A: usize = 64;
    pub(super) const B: usize = 160;
    pub(super) const KEYRING_FLOOR: usize = 256;
    pub(super) const RECOVERY_KEYRING_FLOOR: usize = 264;
    pub(super) const TAIL: usize = 272;
}

/// Where the fields of a slot's entry lie.
mod entry_at {
    pub(super) const PRIORITY: usize = 0;
    pub(super) const TRIES: usize = 1;
    pub(super) const SUCCESSFUL: usize = 2;
    pub(super) const AFTER_SUCCESSFUL: usize = 3;
    pub(super) const STREAK: usize = 4;
    pub(super) const AFTER_STREAK: usize = 6;
    pub(super) const SECURITY_VERSION: usize = 8;
    pub(super) const DIGEST: usize = 16;
    pub(super) const VERSION: usize = 48;
    pub(super) const KEYRING: usize = 80;
    pub(super) const KEYRING_OF: usize = 88;
}

/// The record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with each commit; [`BootState::commit`](crate::store::BootState::commit) sets it.
    pub sequence: u64,
    /// What the loader started last.
    pub last_tried: Option<Target>,
    /// What the loader starts next, once, before anything else.
    pub one_shot: Option<Target>,
    /// What is below them is not started.
    pub floors: Floors,
    /// Handed over by the loader at the last start; zero if there was none.
    pub nonce: Nonce,
    /// Slot A.
    pub a: SlotEntry,
    /// Slot B.
    pub b: SlotEntry,
    pub(crate) reserved: Reserved,
}

/// Bytes of the record that version 1 does not use.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Reserved {
    head: [u8; 6],
    tail: [u8; STRUCTURE - at::TAIL],
}

impl core::fmt::Debug for Reserved {
    /// 246 bytes that mean nothing would hide the rest.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Reserved").finish_non_exhaustive()
    }
}

/// What the record says about one slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotEntry {
    /// 0 to [`MAX_PRIORITY`]; 0 is not started by itself unless the slot is successful.
    pub priority: u8,
    /// 0 to [`MAX_TRIES`]; starts that may still happen before the slot has proved itself.
    pub tries: u8,
    /// Whether it was marked good.
    pub successful: bool,
    /// Starts since userland was last seen up, of a successful slot; saturates.
    pub failure_streak: u16,
    /// Security version of the manifest.
    pub security_version: SecurityVersion,
    /// Digest of the manifest; zero if the slot is empty.
    pub digest: Digest,
    /// Version of the image; empty if the slot is.
    pub version: Version,
    pub(crate) keyring: KeyringOf,
    pub(crate) reserved: EntryReserved,
}

/// A keyring serial, and of which manifest it is, by the first bytes of its digest: a build that does not know of it
/// puts another image into the slot and leaves these bytes as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyringOf {
    serial: KeyringSerial,
    manifest: [u8; 8],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryReserved {
    after_successful: u8,
    after_streak: [u8; 2],
}

/// What a slot's fields mean together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStatus {
    /// Nothing installed.
    Empty,
    /// Installed and verified, waiting to be activated.
    Staged,
    /// Activated, not yet proved, with tries left.
    Trial,
    /// Its tries ended without a verdict; may be activated again.
    Unproven,
    /// A verdict against it, final until something else is installed.
    GivenUp,
    /// Marked good.
    Good,
}

impl SlotStatus {
    /// One word, for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Staged => "staged",
            Self::Trial => "trial",
            Self::Unproven => "unproven",
            Self::GivenUp => "given-up",
            Self::Good => "good",
        }
    }
}

impl core::fmt::Display for SlotStatus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// What an image brings into a slot's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotContents {
    /// Version of the image.
    pub version: Version,
    /// Its security version, and the serial of its keyring; 0 where that is not known.
    pub level: Level,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// Why 512 bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// No magic: never written, or overwritten by something else.
    #[error("no boot-state record here")]
    Magic,
    /// The checksum does not match: torn or damaged.
    #[error("checksum does not match")]
    Checksum,
    /// Written by a version that this build does not know.
    #[error("format version {0} is not known")]
    Format(u16),
    /// The length field does not say 512.
    #[error("length field says {0}")]
    Length(u16),
    /// A field with a value that version 1 does not have.
    #[error("{0} is out of range")]
    Range(&'static str),
}

impl SlotEntry {
    /// What the fields mean together.
    pub fn status(&self) -> SlotStatus {
        match (
            self.digest.is_zero(),
            self.successful,
            self.tries,
            self.priority,
        ) {
            (true, ..) => SlotStatus::Empty,
            (_, true, ..) => SlotStatus::Good,
            (_, _, 0, 0) => SlotStatus::GivenUp,
            (_, _, 0, _) => SlotStatus::Unproven,
            (_, _, _, 0) => SlotStatus::Staged,
            _ => SlotStatus::Trial,
        }
    }

    /// Whether it was marked good (and holds something).
    pub fn is_good(&self) -> bool {
        self.status() == SlotStatus::Good
    }

    /// Whether the loader would start it by itself: good, or on trial with tries left.
    pub fn is_startable(&self) -> bool {
        matches!(self.status(), SlotStatus::Good | SlotStatus::Trial)
    }

    /// What is in the slot; none if it is empty.
    pub fn contents(&self) -> Option<SlotContents> {
        (!self.digest.is_zero()).then_some(SlotContents {
            version: self.version,
            level: self.level(),
            digest: self.digest,
        })
    }

    /// Serial of the keyring that its manifest was signed under; 0 if it was put here by a build that knew of none.
    pub fn keyring_serial(&self) -> KeyringSerial {
        if self.keyring.manifest == field(&self.digest.0, 0) {
            self.keyring.serial
        } else {
            KeyringSerial(0)
        }
    }

    /// How new what it holds is.
    pub fn level(&self) -> Level {
        Level {
            security_version: self.security_version,
            keyring_serial: self.keyring_serial(),
        }
    }

    /// An entry that holds `contents`, and says nothing else.
    pub fn of(contents: SlotContents) -> Self {
        Self::default().holding(contents)
    }

    /// The same entry holding `contents`, with everything that described the ones before forgotten.
    pub(crate) fn holding(&self, contents: SlotContents) -> Self {
        Self {
            version: contents.version,
            security_version: contents.level.security_version,
            digest: contents.digest,
            keyring: KeyringOf {
                serial: contents.level.keyring_serial,
                manifest: field(&contents.digest.0, 0),
            },
            ..self.emptied()
        }
    }

    /// The same entry, empty.
    pub(crate) fn emptied(&self) -> Self {
        Self {
            reserved: self.reserved.clone(),
            ..Self::default()
        }
    }

    fn decode(bytes: &[u8; ENTRY_SIZE]) -> Result<Self, Corrupt> {
        let in_range = |value: u8, max: u8, name| {
            if value <= max {
                Ok(value)
            } else {
                Err(Corrupt::Range(name))
            }
        };
        Ok(Self {
            priority: in_range(u8_at(bytes, entry_at::PRIORITY), MAX_PRIORITY, "priority")?,
            tries: in_range(u8_at(bytes, entry_at::TRIES), MAX_TRIES, "tries left")?,
            successful: in_range(u8_at(bytes, entry_at::SUCCESSFUL), 1, "successful")? == 1,
            failure_streak: u16_at(bytes, entry_at::STREAK),
            security_version: SecurityVersion(u64_at(bytes, entry_at::SECURITY_VERSION)),
            digest: Digest(field(bytes, entry_at::DIGEST)),
            version: Version::from_padded(field(bytes, entry_at::VERSION))
                .ok_or(Corrupt::Range("version"))?,
            keyring: KeyringOf {
                serial: KeyringSerial(u64_at(bytes, entry_at::KEYRING)),
                manifest: field(bytes, entry_at::KEYRING_OF),
            },
            reserved: EntryReserved {
                after_successful: u8_at(bytes, entry_at::AFTER_SUCCESSFUL),
                after_streak: field(bytes, entry_at::AFTER_STREAK),
            },
        })
    }

    fn encode(&self) -> [u8; ENTRY_SIZE] {
        let mut bytes = [0; ENTRY_SIZE];
        let head = [
            self.priority.min(MAX_PRIORITY),
            self.tries.min(MAX_TRIES),
            u8::from(self.successful),
            self.reserved.after_successful,
        ];
        put(&mut bytes, entry_at::PRIORITY, &head);
        put(
            &mut bytes,
            entry_at::STREAK,
            &self.failure_streak.to_le_bytes(),
        );
        put(
            &mut bytes,
            entry_at::AFTER_STREAK,
            &self.reserved.after_streak,
        );
        put(
            &mut bytes,
            entry_at::SECURITY_VERSION,
            &self.security_version.0.to_le_bytes(),
        );
        put(&mut bytes, entry_at::DIGEST, &self.digest.0);
        put(&mut bytes, entry_at::VERSION, self.version.padded());
        let keyring = &self.keyring;
        put(
            &mut bytes,
            entry_at::KEYRING,
            &keyring.serial.0.to_le_bytes(),
        );
        put(&mut bytes, entry_at::KEYRING_OF, &keyring.manifest);
        bytes
    }
}

impl Record {
    /// Both slots empty, nothing tried, no floor.
    pub fn empty() -> Self {
        Self {
            sequence: 0,
            last_tried: None,
            one_shot: None,
            floors: Floors::default(),
            nonce: Nonce::ZERO,
            a: SlotEntry::default(),
            b: SlotEntry::default(),
            reserved: Reserved {
                head: [0; 6],
                tail: [0; STRUCTURE - at::TAIL],
            },
        }
    }

    /// What it says about `slot`.
    pub fn slot(&self, slot: Slot) -> &SlotEntry {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }

    /// The same, to change.
    pub fn slot_mut(&mut self, slot: Slot) -> &mut SlotEntry {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Corrupt`], if there is none that this build understands; nothing of it is to be used then.
    pub fn decode(bytes: &[u8; SIZE]) -> Result<Self, Corrupt> {
        if field(bytes, 0) != MAGIC {
            return Err(Corrupt::Magic);
        }
        if !bytes::is_sealed(bytes, at::CRC) {
            return Err(Corrupt::Checksum);
        }
        let format = u16_at(bytes, at::FORMAT);
        if format != FORMAT {
            return Err(Corrupt::Format(format));
        }
        let length = u16_at(bytes, at::LENGTH);
        if usize::from(length) != SIZE {
            return Err(Corrupt::Length(length));
        }
        let sequence = u64_at(bytes, at::SEQUENCE);
        if sequence >= NUMBERS_END {
            return Err(Corrupt::Range("sequence number"));
        }
        let target = |place, name| match u8_at(bytes, place) {
            0 => Ok(None),
            code => Target::from_code(code)
                .map(Some)
                .ok_or(Corrupt::Range(name)),
        };
        Ok(Self {
            sequence,
            last_tried: target(at::LAST_TRIED, "last slot tried")?,
            one_shot: target(at::ONE_SHOT, "one-shot target")?,
            floors: Floors {
                system: Level::new(u64_at(bytes, at::FLOOR), u64_at(bytes, at::KEYRING_FLOOR)),
                recovery: Level::new(
                    u64_at(bytes, at::RECOVERY_FLOOR),
                    u64_at(bytes, at::RECOVERY_KEYRING_FLOOR),
                ),
            },
            nonce: Nonce(field(bytes, at::NONCE)),
            a: SlotEntry::decode(&field(bytes, at::A))?,
            b: SlotEntry::decode(&field(bytes, at::B))?,
            reserved: Reserved {
                head: field(bytes, at::HEAD),
                tail: field(bytes, at::TAIL),
            },
        })
    }

    /// The bytes to write. Priorities and tries above their limits are cut down to them.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, at::FORMAT, &FORMAT.to_le_bytes());
        put(&mut bytes, at::LENGTH, &512_u16.to_le_bytes());
        put(&mut bytes, at::SEQUENCE, &self.sequence.to_le_bytes());
        let targets = [self.last_tried, self.one_shot].map(Target::code_or_none);
        put(&mut bytes, at::LAST_TRIED, &targets);
        put(&mut bytes, at::HEAD, &self.reserved.head);
        let Floors { system, recovery } = &self.floors;
        for (place, floor) in [
            (at::FLOOR, system.security_version.0),
            (at::KEYRING_FLOOR, system.keyring_serial.0),
            (at::RECOVERY_FLOOR, recovery.security_version.0),
            (at::RECOVERY_KEYRING_FLOOR, recovery.keyring_serial.0),
        ] {
            put(&mut bytes, place, &floor.to_le_bytes());
        }
        put(&mut bytes, at::NONCE, &self.nonce.0);
        put(&mut bytes, at::A, &self.a.encode());
        put(&mut bytes, at::B, &self.b.encode());
        put(&mut bytes, at::TAIL, &self.reserved.tail);
        bytes::seal(&mut bytes, at::CRC);
        bytes
    }

    /// Of two records with one sequence number, the one that permits less.
    ///
    /// Compared in this order, the smaller winning: tries left of both slots together, successful
    /// slots, priorities together, slots that hold anything, whether there is a one-shot target; then
    /// the greater winning: floor, recovery's floor, keyring floor, recovery's, failure streaks together;
    /// at last the bytes, so that the choice never depends on which copy is which.
    pub fn that_permits_less(self, other: Self) -> Self {
        if other.permission() < self.permission() {
            other
        } else {
            self
        }
    }

    fn permission(&self) -> impl Ord + use<> {
        let (a, b) = (&self.a, &self.b);
        let both =
            |value: fn(&SlotEntry) -> u8| u16::from(value(a)).saturating_add(value(b).into());
        (
            (
                both(|slot| slot.tries),
                both(|slot| slot.successful.into()),
                both(|slot| slot.priority),
                both(|slot| (!slot.digest.is_zero()).into()),
                self.one_shot.is_some(),
            ),
            Reverse((
                self.floors.system.security_version,
                self.floors.recovery.security_version,
                self.floors.system.keyring_serial,
                self.floors.recovery.keyring_serial,
                u32::from(a.failure_streak).saturating_add(b.failure_streak.into()),
            )),
            self.encode(),
        )
    }
}
