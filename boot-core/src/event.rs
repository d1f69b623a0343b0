//! The event ring: what went wrong or changed, for people. No decision reads it.
//!
//! 256 entries, each alone in a block, each with a CRC. Entry number `n` (they are numbered without
//! end) lies at index `n % 256`. Any stage appends; a torn entry is skipped by readers and overwritten
//! when its turn comes. Byte by byte: docs/formats/event-ring.md.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    bytes::{STRUCTURE, field, put, u8_at, u16_at},
    device::{Device, WriteError, first_that_reads_back, write_and_read_back},
    ring::{self, Common},
    slot::Target,
    store::{BootState, EVENT_RING, STRIDE},
    types::{Digest, NUMBERS_END, Nonce},
};

/// Entries in the ring.
pub const ENTRIES: u64 = 256;

/// Most bytes of text in an entry.
pub const TEXT_MAX: usize = ring::TEXT_MAX;

const MAGIC: [u8; 4] = *b"SPEV";
/// Where the fields lie that only events have.
mod at {
    pub(super) const STAGE: usize = 6;
    pub(super) const SLOT: usize = 7;
    pub(super) const KIND: usize = 32;
    pub(super) const NONCE: usize = 40;
}

/// Which part of the boot wrote an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stage(pub u8);

impl Stage {
    /// The loader.
    pub const LOADER: Self = Self(1);
    /// The initrd agent.
    pub const INITRD: Self = Self(2);
    /// The boot controller in the running system.
    pub const BOOTCTL: Self = Self(3);
    /// The recovery system.
    pub const RECOVERY: Self = Self(4);

    /// One word, for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LOADER => "loader",
            Self::INITRD => "initrd",
            Self::BOOTCTL => "bootctl",
            Self::RECOVERY => "recovery",
            _ => "unknown",
        }
    }
}

/// What an event is about. A number, because rings outlive the builds that know its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKind(pub u16);

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        impl EventKind {
            $($(#[$doc])* pub const $constant: Self = Self($number);)*

            /// Every kind that this build knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$constant),*];

            /// Its name, for people and for JSON; "unknown" for what a newer build wrote.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $name,)*
                    _ => "unknown",
                }
            }
        }
    };
}

// Numbers are never given anew; new ones may be added: an older build calls them "unknown".
event_kinds! {
    /// The loader did not start a slot; the text says why.
    REJECTED = 1, "rejected";
    /// Verified, but the firmware would not load or start it.
    START_FAILED = 2, "start-failed";
    /// Nothing was startable; the loader goes round.
    LAST_RESORT = 3, "last-resort";
    /// No valid record was found; a new one was made from what verifies.
    RECORD_REBUILT = 4, "record-rebuilt";
    /// The record could not be written.
    RECORD_NOT_WRITTEN = 5, "record-not-written";
    /// The floor was above every slot that verifies, and was not believed.
    FLOOR_IMPLAUSIBLE = 6, "floor-implausible";
    /// One copy of the record was damaged and has been written again.
    COPY_REPAIRED = 7, "copy-repaired";
    /// What was started under Secure Boot could not be measured into the TPM.
    NOT_MEASURED = 8, "not-measured";
    /// The initrd agent could not bring up the system.
    INITRD_FAILED = 16, "initrd-failed";
    /// The disk's table or the state filesystem was grown.
    GROWN = 17, "grown";
    /// The state filesystem was checked and repaired.
    STATE_REPAIRED = 18, "state-repaired";
    /// The state filesystem cannot be used as it should.
    STATE_PROBLEM = 19, "state-problem";
    /// A block of the root does not match its verity leaf.
    ROOT_CORRUPT = 20, "root-corrupt";
    /// The partition table or the protective MBR was damaged and has been written again.
    TABLE_REPAIRED = 21, "table-repaired";
    /// An image was written into a slot and staged.
    STAGED = 32, "staged";
    /// A slot was made the next one to start.
    ACTIVATED = 33, "activated";
    /// A slot was marked good.
    MARKED_GOOD = 34, "marked-good";
    /// A slot was given up; the text says why.
    GIVEN_UP = 35, "given-up";
    /// An operator or policy went back to the other slot.
    ROLLED_BACK = 36, "rolled-back";
    /// A slot's tries ended without a verdict.
    UNPROVEN = 37, "unproven";
    /// A manifest digest was quarantined. Reserved: nothing writes it yet, [`GIVEN_UP`](Self::GIVEN_UP) says it too.
    QUARANTINED = 38, "quarantined";
    /// A manifest digest was released from quarantine.
    RELEASED = 39, "released";
    /// The health gate's deadline passed or a check failed for good.
    UNHEALTHY = 40, "unhealthy";
    /// The machine stays up although something is wrong.
    DEGRADED = 41, "degraded";
    /// The security floor was raised.
    FLOOR_RAISED = 42, "floor-raised";
    /// The last run did not end in a clean shutdown.
    UNCLEAN_SHUTDOWN = 43, "unclean-shutdown";
    /// An installation did not finish.
    INSTALL_FAILED = 44, "install-failed";
    /// A loader was written to an ESP.
    LOADER_UPDATED = 45, "loader-updated";
    /// The recovery system was replaced.
    RECOVERY_REPLACED = 46, "recovery-replaced";
    /// A slot was emptied.
    CLEARED = 47, "cleared";
    /// The next start was set to something, once.
    ONE_SHOT = 48, "one-shot";
    /// A good slot was left because its userland did not come up, several starts in a row.
    NEVER_UP = 49, "never-up";
    /// The state filesystem was made anew, empty.
    STATE_ERASED = 50, "state-erased";
    /// A new loader did not prove itself; the text says why.
    LOADER_GIVEN_UP = 51, "loader-given-up";
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "unknown" => write!(f, "unknown ({})", self.0),
            name => f.pad(name),
        }
    }
}

/// An event. [`BootState::append_event`] numbers it and cuts the text to [`TEXT_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: rises by one with each.
    pub sequence: u64,
    /// Which part of the boot wrote it.
    pub stage: Stage,
    /// The slot it is about.
    pub slot: Option<Target>,
    /// Seconds since 1970, zero if the clock was not known.
    pub time: i64,
    /// What it is about.
    pub kind: EventKind,
    /// Nonce of the start it belongs to; zero if there is none.
    pub nonce: Nonce,
    /// Manifest digest it is about; zero if there is none.
    pub digest: Digest,
    /// One line for a person.
    pub text: String,
}

impl Event {
    /// An event with only these, at an unknown time.
    pub fn new(stage: Stage, kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            sequence: 0,
            stage,
            slot: None,
            time: 0,
            kind,
            nonce: Nonce::ZERO,
            digest: Digest::ZERO,
            text: text.into(),
        }
    }

    /// About this slot.
    pub fn about(mut self, target: impl Into<Target>) -> Self {
        self.slot = Some(target.into());
        self
    }

    /// The bytes of the entry.
    pub fn encode(&self) -> [u8; STRUCTURE] {
        let common = Common {
            sequence: self.sequence,
            time: self.time,
            digest: self.digest,
            text: &self.text,
        };
        common.encode(MAGIC, |bytes| {
            put(bytes, at::STAGE, &[self.stage.0]);
            put(bytes, at::SLOT, &[Target::code_or_none(self.slot)]);
            put(bytes, at::KIND, &self.kind.0.to_le_bytes());
            put(bytes, at::NONCE, &self.nonce.0);
        })
    }

    /// Reads an entry; none if there is no valid one.
    pub fn decode(bytes: &[u8; STRUCTURE]) -> Option<Self> {
        let common = Common::decode(MAGIC, bytes)?;
        Some(Self {
            sequence: common.sequence,
            stage: Stage(u8_at(bytes, at::STAGE)),
            slot: Target::from_code(u8_at(bytes, at::SLOT)),
            time: common.time,
            kind: EventKind(u16_at(bytes, at::KIND)),
            nonce: Nonce(field(bytes, at::NONCE)),
            digest: common.digest,
            text: common.text,
        })
    }
}

impl<D: Device> BootState<D> {
    /// Appends `event` under the next number, and flushes. A place that cannot be read, or does not give back what it was
    /// given, costs its number. A write that the device refuses ends it; four tries at most.
    ///
    /// # Errors
    /// What the device said last. Events are for people: a caller goes on without.
    pub fn append_event(&mut self, event: &Event) -> Result<(), WriteError<D::Error>> {
        let (events, unreadable) = self.ring().map_err(WriteError::Device)?;
        let next = ring::next_number(events.last().map(|last| last.sequence));
        let index_of = |number: u64| number.checked_rem(ENTRIES).unwrap_or(0);
        let numbers = (next..NUMBERS_END).filter(|number| !unreadable.contains(&index_of(*number)));
        first_that_reads_back(numbers.map(|sequence| {
            let event = Event {
                sequence,
                ..event.clone()
            };
            let offset = EVENT_RING.saturating_add(index_of(sequence).saturating_mul(STRIDE));
            write_and_read_back(&mut self.device, offset, &event.encode())
        }))
    }

    /// The events that can be read, oldest first.
    pub fn events(&mut self) -> Result<Vec<Event>, D::Error> {
        self.ring().map(|(events, _)| events)
    }

    /// The events, oldest first, and the places that cannot be read. At least one can.
    fn ring(&mut self) -> Result<(Vec<Event>, Vec<u64>), D::Error> {
        let mut events = Vec::new();
        let mut unreadable = Vec::new();
        ring::scan(&mut self.device, EVENT_RING, ENTRIES, |index, bytes| {
            let Some(bytes) = bytes else {
                unreadable.push(index);
                return;
            };
            let event = Event::decode(bytes)
                .filter(|event| event.sequence.checked_rem(ENTRIES) == Some(index));
            events.extend(event);
        })?;
        events.sort_unstable_by_key(|event: &Event| event.sequence);
        Ok((events, unreadable))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use crate::{store::PARTITION_SIZE, test_support::MemoryDevice};

    /// Texts of a ring, in order, that began with an entry of this number and had another one appended.
    fn after(sequence: u64) -> Vec<String> {
        let first = Event {
            sequence,
            ..Event::new(Stage::LOADER, EventKind::REJECTED, "first")
        };
        let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
        let at = EVENT_RING + sequence % ENTRIES * STRIDE;
        device.write_at(at, &first.encode()).unwrap();
        let mut state = BootState::new(device);
        let later = Event::new(Stage::LOADER, EventKind::REJECTED, "later");
        state.append_event(&later).unwrap();
        let events = state.events().unwrap();
        events.into_iter().map(|event| event.text).collect()
    }

    #[test]
    fn a_number_that_no_history_reaches_is_damage_and_hides_nothing() {
        assert_eq!(after(5), ["first", "later"]);
        assert_eq!(after(NUMBERS_END - 2), ["first", "later"]);
        // The last number is given again, in the same place.
        assert_eq!(after(NUMBERS_END - 1), ["later"]);
        for damaged in [NUMBERS_END, (1 << 63) - 1, 1 << 63, u64::MAX] {
            assert_eq!(after(damaged), ["later"], "{damaged:#x}");
        }
    }

    #[test]
    fn kinds_are_named_and_unknown_ones_are_numbered() {
        assert_eq!(format!("{:8}|", EventKind::STAGED), "staged  |");
        assert_eq!(format!("{}", EventKind(999)), "unknown (999)");
    }
}
