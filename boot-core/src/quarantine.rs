//! The quarantine ring: manifest digests that failed and are not to come back by themselves.
//!
//! 16 entries, each alone in a block, each with a CRC. A free place is used first, then the oldest
//! entry's. Releasing a digest zeroes its block. Byte by byte: docs/formats/quarantine-ring.md.

use alloc::{string::String, vec::Vec};

use crate::{
    bytes::STRUCTURE,
    device::{Device, WriteError, first_that_reads_back, write_and_read_back},
    ring::{self, Common},
    store::{BootState, QUARANTINE_RING, STRIDE},
    types::Digest,
};

/// Entries in the ring.
pub const ENTRIES: u64 = 16;

/// Most bytes of the reason.
pub const REASON_MAX: usize = ring::TEXT_MAX;

const MAGIC: [u8; 4] = *b"SPQR";

/// A manifest that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its number: rises by one with each.
    pub sequence: u64,
    /// Seconds since 1970, zero if the clock was not known.
    pub time: i64,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Why; one line for a person.
    pub reason: String,
}

impl QuarantineEntry {
    /// The bytes of the entry; the reason is cut to [`REASON_MAX`] bytes.
    pub fn encode(&self) -> [u8; STRUCTURE] {
        let common = Common {
            sequence: self.sequence,
            time: self.time,
            digest: self.digest,
            text: &self.reason,
        };
        common.encode(MAGIC, |_| ())
    }

    /// Reads an entry; none if there is no valid one.
    pub fn decode(bytes: &[u8; STRUCTURE]) -> Option<Self> {
        let common = Common::decode(MAGIC, bytes)?;
        Some(Self {
            sequence: common.sequence,
            time: common.time,
            digest: common.digest,
            reason: common.text,
        })
    }
}

/// The ring's places, but those that cannot be read.
struct Places {
    /// With their entries, oldest first.
    taken: Vec<(u64, QuarantineEntry)>,
    /// Without a valid one.
    free: Vec<u64>,
}

impl<D: Device> BootState<D> {
    /// What is quarantined, oldest first.
    pub fn quarantined(&mut self) -> Result<Vec<QuarantineEntry>, D::Error> {
        let taken = self.places()?.taken;
        Ok(taken.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Whether `digest` is quarantined, and why.
    pub fn quarantine_entry(
        &mut self,
        digest: &Digest,
    ) -> Result<Option<QuarantineEntry>, D::Error> {
        Ok(self
            .quarantined()?
            .into_iter()
            .find(|entry| entry.digest == *digest))
    }

    /// Quarantines `digest`, and flushes. Writes nothing if it is there already. A free place that cannot be read, or does
    /// not give back what it was given, is passed over. A write that the device refuses ends it; four tries at most.
    pub fn quarantine(
        &mut self,
        digest: &Digest,
        reason: &str,
        time: i64,
    ) -> Result<(), WriteError<D::Error>> {
        let Places { taken, free } = self.places().map_err(WriteError::Device)?;
        if taken.iter().any(|(_, entry)| entry.digest == *digest) {
            return Ok(());
        }
        let entry = QuarantineEntry {
            sequence: ring::next_number(taken.last().map(|(_, last)| last.sequence)),
            time,
            digest: *digest,
            reason: reason.into(),
        };
        let bytes = entry.encode();
        let oldest = taken.first().map(|(index, _)| *index);
        let in_turn = free.into_iter().chain(oldest);
        first_that_reads_back(in_turn.map(|index| self.write_quarantine(index, &bytes)))
    }

    /// Releases `digest`, and flushes. Returns whether it was quarantined.
    pub fn release(&mut self, digest: &Digest) -> Result<bool, WriteError<D::Error>> {
        let taken = self.places().map_err(WriteError::Device)?.taken;
        let mut found = false;
        for (index, entry) in taken {
            if entry.digest == *digest {
                self.write_quarantine(index, &[0; STRUCTURE])?;
                found = true;
            }
        }
        Ok(found)
    }

    fn write_quarantine(
        &mut self,
        index: u64,
        bytes: &[u8; STRUCTURE],
    ) -> Result<(), WriteError<D::Error>> {
        let offset = QUARANTINE_RING.saturating_add(index.saturating_mul(STRIDE));
        write_and_read_back(&mut self.device, offset, bytes)
    }

    fn places(&mut self) -> Result<Places, D::Error> {
        let mut taken = Vec::new();
        let mut free = Vec::new();
        ring::scan(
            &mut self.device,
            QUARANTINE_RING,
            ENTRIES,
            |index, bytes| match bytes.map(QuarantineEntry::decode) {
                Some(Some(entry)) => taken.push((index, entry)),
                Some(None) => free.push(index),
                None => {}
            },
        )?;
        taken.sort_unstable_by_key(|(index, entry)| (entry.sequence, *index));
        Ok(Places { taken, free })
    }
}
