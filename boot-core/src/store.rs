//! The `boot-state` partition: two copies of the record, and the two rings.
//!
//! ```text
//! 0      copy 0 of the record        1 MiB  copy 1
//! 2 MiB  event ring                  3 MiB  quarantine ring
//! ```
//!
//! A commit writes only the copy that is not the newest valid one, so that whatever happens to the
//! write, the newest stays. It flushes before (the newest may have been read from a device's cache
//! that a power cut would empty), flushes after, and reads back what it wrote.

use alloc::string::{String, ToString};
use core::fmt::{Debug, Display};

use crate::{
    bytes::STRUCTURE,
    device::{Device, WriteError, read_structure, write_and_read_back},
    record::{Corrupt, Record},
};

/// Where the copies of the record lie, in bytes from the start of the partition.
pub const COPIES: [u64; 2] = [0, 1 << 20];

/// Where the event ring starts.
pub const EVENT_RING: u64 = 2 << 20;

/// Where the quarantine ring starts.
pub const QUARANTINE_RING: u64 = 3 << 20;

/// Distance between the entries of a ring.
pub const STRIDE: u64 = 4096;

/// Size of the partition.
pub const PARTITION_SIZE: u64 = 4 << 20;

/// The partition, opened.
#[derive(Debug)]
pub struct BootState<D> {
    pub(crate) device: D,
}

/// What reading both copies found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The newest valid record; none if no copy is valid.
    pub record: Option<Record>,
    /// Which copy that is: 0 or 1.
    pub newest: Option<usize>,
    /// How each copy was.
    pub copies: [CopyHealth; 2],
}

/// How one copy of the record was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyHealth {
    /// Valid, with this sequence number.
    Valid {
        /// Its sequence number.
        sequence: u64,
    },
    /// Read, but not a record.
    Corrupt(Corrupt),
    /// The device would not read it; what it said.
    Unreadable(String),
}

impl Display for CopyHealth {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Valid { sequence } => write!(f, "valid, sequence {sequence}"),
            Self::Corrupt(corrupt) => Display::fmt(corrupt, f),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// Why a commit may not be on the disk. The newest copy from before is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError<E: Debug + Display> {
    /// The record was computed from one that is no longer the newest.
    #[error("the boot-state record changed meanwhile (sequence {expected}, found {found})")]
    Stale {
        /// Sequence number of the record that the change was computed from.
        expected: u64,
        /// Sequence number of the newest on the disk.
        found: u64,
    },
    /// No greater sequence number exists.
    #[error("the boot-state record has the highest sequence number there is")]
    SequenceExhausted,
    /// The device refused, or gave back something else.
    #[error("cannot write the boot-state record: {0}")]
    Write(WriteError<E>),
}

impl<D: Device> BootState<D> {
    /// On the `boot-state` partition.
    pub fn new(device: D) -> Self {
        Self { device }
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// The device back.
    pub fn into_inner(self) -> D {
        self.device
    }

    /// Reads both copies. A copy that cannot be read, asked twice, is like one that is damaged.
    pub fn load(&mut self) -> Loaded {
        let [first, second] = COPIES.map(|offset| match self.read_copy(offset) {
            Ok(bytes) => Record::decode(&bytes).map_err(CopyHealth::Corrupt),
            Err(error) => Err(CopyHealth::Unreadable(error.to_string())),
        });
        let health = |copy: &Result<Record, CopyHealth>| match copy {
            Ok(record) => CopyHealth::Valid {
                sequence: record.sequence,
            },
            Err(health) => health.clone(),
        };
        let copies = [health(&first), health(&second)];
        let (record, newest) = match (first.ok(), second.ok()) {
            (None, None) => (None, None),
            (Some(record), None) => (Some(record), Some(0)),
            (None, Some(record)) => (Some(record), Some(1)),
            (Some(first), Some(second)) => {
                let (record, newest) = newer_of(first, second);
                (Some(record), Some(newest))
            }
        };
        Loaded {
            record,
            newest,
            copies,
        }
    }

    /// Makes `record` the newest, under the next sequence number, and returns it as written.
    ///
    /// `record` is what a transition made of the newest record (or [`rebuild`] of none).
    ///
    /// # Errors
    /// See [`CommitError`]. The copy that was the newest before has not been touched; whether the new
    /// one is on the disk is not known.
    ///
    /// [`rebuild`]: crate::transition::rebuild
    pub fn commit(&mut self, record: &Record) -> Result<Record, CommitError<D::Error>> {
        let loaded = self.load();
        if let Some(newest) = &loaded.record
            && newest.sequence != record.sequence
        {
            let (expected, found) = (record.sequence, newest.sequence);
            return Err(CommitError::Stale { expected, found });
        }
        let sequence = record
            .sequence
            .checked_add(1)
            .ok_or(CommitError::SequenceExhausted)?;
        let record = Record {
            sequence,
            ..record.clone()
        };
        let [first, second] = COPIES;
        match loaded.newest {
            Some(0) => self.write_copy(second, &record)?,
            Some(_) => self.write_copy(first, &record)?,
            None => self
                .write_copy(first, &record)
                .or_else(|_| self.write_copy(second, &record))?,
        }
        Ok(record)
    }

    /// Read once more, because an error that passes is not to cost the machine what it knows; and not more often, because
    /// a disk may take half a minute to refuse, and a watchdog runs.
    fn read_copy(&mut self, offset: u64) -> Result<[u8; STRUCTURE], D::Error> {
        read_structure(&mut self.device, offset)
            .or_else(|_| read_structure(&mut self.device, offset))
    }

    fn write_copy(&mut self, offset: u64, record: &Record) -> Result<(), CommitError<D::Error>> {
        self.device
            .flush()
            .map_err(|error| CommitError::Write(WriteError::Device(error)))?;
        write_and_read_back(&mut self.device, offset, &record.encode()).map_err(CommitError::Write)
    }
}

/// The newer of two valid copies, and which it is.
fn newer_of(first: Record, second: Record) -> (Record, usize) {
    match first.sequence.cmp(&second.sequence) {
        core::cmp::Ordering::Greater => (first, 0),
        core::cmp::Ordering::Less => (second, 1),
        core::cmp::Ordering::Equal => {
            let winner = first.clone().that_permits_less(second);
            let copy = usize::from(winner != first);
            (winner, copy)
        }
    }
}
