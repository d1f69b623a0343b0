//! The boot-state record: what has been tried, what worked, what comes next.
//!
//! 512 bytes, frozen at version 1. Builds of different years read and write it, so every byte that
//! this version does not use is kept as it was found. The record is not authenticated: it may only
//! choose among images that verify. Byte by byte: docs/formats/boot-state.md.

use core::cmp::Reverse;

use crate::{
    bytes::{self, STRUCTURE, field, put, u8_at, u16_at, u64_at},
    slot::{Slot, Target},
    types::{Digest, Nonce, SecurityVersion, Version},
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
const CRC_AT: usize = 12;
const ENTRY_SIZE: usize = 96;
const ENTRY_A_AT: usize = 64;
const ENTRY_B_AT: usize = 160;
const TAIL_AT: usize = 256;

/// The record, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with each commit; [`BootState::commit`](crate::store::BootState::commit) sets it.
    pub sequence: u64,
    /// What the loader started last.
    pub last_tried: Option<Target>,
    /// What the loader starts next, once, before anything else.
    pub one_shot: Option<Target>,
    /// Slots below this security version are not started.
    pub floor: SecurityVersion,
    /// The same for recovery.
    pub recovery_floor: SecurityVersion,
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
    tail: [u8; STRUCTURE - TAIL_AT],
}

impl core::fmt::Debug for Reserved {
    /// 262 bytes that mean nothing would hide the rest.
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
    pub(crate) reserved: EntryReserved,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryReserved {
    after_successful: u8,
    after_streak: [u8; 2],
    end: [u8; 16],
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
    /// Its security version.
    pub security_version: SecurityVersion,
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
            security_version: self.security_version,
            digest: self.digest,
        })
    }

    /// The same entry holding `contents`, with everything that described the ones before forgotten.
    pub(crate) fn holding(&self, contents: SlotContents) -> Self {
        Self {
            version: contents.version,
            security_version: contents.security_version,
            digest: contents.digest,
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
            priority: in_range(u8_at(bytes, 0), MAX_PRIORITY, "priority")?,
            tries: in_range(u8_at(bytes, 1), MAX_TRIES, "tries left")?,
            successful: in_range(u8_at(bytes, 2), 1, "successful")? == 1,
            failure_streak: u16_at(bytes, 4),
            security_version: SecurityVersion(u64_at(bytes, 8)),
            digest: Digest(field(bytes, 16)),
            version: Version::from_padded(field(bytes, 48)).ok_or(Corrupt::Range("version"))?,
            reserved: EntryReserved {
                after_successful: u8_at(bytes, 3),
                after_streak: field(bytes, 6),
                end: field(bytes, 80),
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
        put(&mut bytes, 0, &head);
        put(&mut bytes, 4, &self.failure_streak.to_le_bytes());
        put(&mut bytes, 6, &self.reserved.after_streak);
        put(&mut bytes, 8, &self.security_version.0.to_le_bytes());
        put(&mut bytes, 16, &self.digest.0);
        put(&mut bytes, 48, self.version.padded());
        put(&mut bytes, 80, &self.reserved.end);
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
            floor: SecurityVersion(0),
            recovery_floor: SecurityVersion(0),
            nonce: Nonce::ZERO,
            a: SlotEntry::default(),
            b: SlotEntry::default(),
            reserved: Reserved {
                head: [0; 6],
                tail: [0; STRUCTURE - TAIL_AT],
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
        if !bytes::is_sealed(bytes, CRC_AT) {
            return Err(Corrupt::Checksum);
        }
        let format = u16_at(bytes, 8);
        if format != FORMAT {
            return Err(Corrupt::Format(format));
        }
        let length = u16_at(bytes, 10);
        if usize::from(length) != SIZE {
            return Err(Corrupt::Length(length));
        }
        let target = |at, name| match u8_at(bytes, at) {
            0 => Ok(None),
            code => Target::from_code(code)
                .map(Some)
                .ok_or(Corrupt::Range(name)),
        };
        Ok(Self {
            sequence: u64_at(bytes, 16),
            last_tried: target(24, "last slot tried")?,
            one_shot: target(25, "one-shot target")?,
            floor: SecurityVersion(u64_at(bytes, 32)),
            recovery_floor: SecurityVersion(u64_at(bytes, 40)),
            nonce: Nonce(field(bytes, 48)),
            a: SlotEntry::decode(&field(bytes, ENTRY_A_AT))?,
            b: SlotEntry::decode(&field(bytes, ENTRY_B_AT))?,
            reserved: Reserved {
                head: field(bytes, 26),
                tail: field(bytes, TAIL_AT),
            },
        })
    }

    /// The bytes to write. Priorities and tries above their limits are cut down to them.
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &FORMAT.to_le_bytes());
        put(&mut bytes, 10, &512_u16.to_le_bytes());
        put(&mut bytes, 16, &self.sequence.to_le_bytes());
        let targets = [self.last_tried, self.one_shot].map(Target::code_or_none);
        put(&mut bytes, 24, &targets);
        put(&mut bytes, 26, &self.reserved.head);
        put(&mut bytes, 32, &self.floor.0.to_le_bytes());
        put(&mut bytes, 40, &self.recovery_floor.0.to_le_bytes());
        put(&mut bytes, 48, &self.nonce.0);
        put(&mut bytes, ENTRY_A_AT, &self.a.encode());
        put(&mut bytes, ENTRY_B_AT, &self.b.encode());
        put(&mut bytes, TAIL_AT, &self.reserved.tail);
        bytes::seal(&mut bytes, CRC_AT);
        bytes
    }

    /// Of two records with one sequence number, the one that permits less.
    ///
    /// Compared in this order, the smaller winning: tries left of both slots together, successful
    /// slots, priorities together, slots that hold anything, whether there is a one-shot target; then
    /// the greater winning: floor, recovery's floor, failure streaks together; at last the bytes, so
    /// that the choice never depends on which copy is which.
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
                self.floor,
                self.recovery_floor,
                u32::from(a.failure_streak).saturating_add(b.failure_streak.into()),
            )),
            self.encode(),
        )
    }
}
