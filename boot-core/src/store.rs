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
    types::LAST_NUMBER,
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
        let numbered = |sequence| Record {
            sequence,
            ..record.clone()
        };
        let [first, second] = COPIES;
        let (newest, other) = match loaded.newest {
            Some(0) => (first, second),
            Some(_) => (second, first),
            None => {
                let record = numbered(record.sequence.saturating_add(1).min(LAST_NUMBER));
                self.write_copy(first, &record)
                    .or_else(|_| self.write_copy(second, &record))?;
                return Ok(record);
            }
        };
        if record.sequence < LAST_NUMBER {
            let record = numbered(record.sequence.saturating_add(1));
            self.write_copy(other, &record)?;
            return Ok(record);
        }
        // Nobody counts that far, and nothing can follow it: numbers begin anew. The newest copy goes last, when the other
        // one has what replaces it.
        self.write_copy(other, &numbered(1))?;
        let record = numbered(2);
        self.write_copy(newest, &record)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{test_support::MemoryDevice, types::NUMBERS_END};

    /// A partition with copies of these numbers.
    fn numbered(copies: [u64; 2]) -> MemoryDevice {
        let mut device = MemoryDevice::new(PARTITION_SIZE, 512);
        for (offset, sequence) in COPIES.into_iter().zip(copies) {
            let record = Record {
                sequence,
                ..Record::empty()
            };
            device.write_at(offset, &record.encode()).unwrap();
        }
        device
    }

    fn changed(record: Record) -> Record {
        let one_shot = Some(crate::Target::Recovery);
        Record { one_shot, ..record }
    }

    #[test]
    fn a_copy_whose_number_cannot_be_right_is_damaged() {
        for wrong in [NUMBERS_END, 1 << 63, u64::MAX] {
            let loaded = BootState::new(numbered([wrong, 7])).load();
            assert_eq!(loaded.record.map(|it| it.sequence), Some(7));
            let damaged = CopyHealth::Corrupt(Corrupt::Range("sequence number"));
            assert_eq!(loaded.copies[0], damaged, "{wrong:#x}");
            let mut device = numbered([wrong, wrong]);
            let mut state = BootState::new(&mut device);
            assert_eq!(state.load().record, None);
            // As with any lost record: one is made anew, and its next commit takes the other copy's place.
            let anew = state.commit(&Record::empty()).unwrap();
            let next = state.commit(&changed(anew)).unwrap();
            let valid = [1, 2].map(|sequence| CopyHealth::Valid { sequence });
            assert_eq!(state.load().copies, valid);
            assert_eq!(state.load().record, Some(next));
        }
    }

    #[test]
    fn where_numbers_end_they_begin_anew_and_no_cut_loses_a_record() {
        for (newest, copies) in [(0, [LAST_NUMBER, 3]), (1, [3, LAST_NUMBER])] {
            let before = numbered(copies);
            let mut after = before.clone();
            let mut state = BootState::new(&mut after);
            let old = state.load().record.unwrap();
            let new = state.commit(&changed(old.clone())).unwrap();
            let loaded = state.load();
            assert_eq!((new.sequence, loaded.newest), (2, Some(newest)));
            assert_eq!(loaded.record, Some(new));
            // The first write done, the second one not: what was there before still counts. The second one torn: what
            // the first one wrote.
            let other = COPIES[1 - newest];
            let mut half = before;
            let mut block = [0; 512];
            after.read_at(other, &mut block).unwrap();
            half.write_at(other, &block).unwrap();
            assert_eq!(BootState::new(&mut half).load().record, Some(old.clone()));
            half.write_at(COPIES[newest], &[0xa5; 512]).unwrap();
            let one = BootState::new(&mut half).load().record.unwrap();
            assert_eq!((one.sequence, one.one_shot), (1, changed(old).one_shot));
        }
    }
}
