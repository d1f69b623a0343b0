//! The quarantine ring: manifest digests that failed and are not to come back by themselves.
//!
//! 16 entries, each alone in a block, each with a CRC. A free place is used first, then the oldest
//! entry's. Releasing a digest zeroes its block. Byte by byte: docs/formats/quarantine-ring.md.

use alloc::{string::String, vec::Vec};

use crate::{
    bytes::{self, STRUCTURE, field, put, u16_at, u64_at},
    device::{Device, WriteError, first_that_reads_back, write_and_read_back},
    event::{cut, scan, text_at},
    store::{BootState, QUARANTINE_RING, STRIDE},
    types::Digest,
};

/// Entries in the ring.
pub const ENTRIES: u64 = 16;

/// Most bytes of the reason.
pub const REASON_MAX: usize = STRUCTURE - at::REASON;

const MAGIC: [u8; 4] = *b"SPQR";
const FORMAT: u16 = 1;

/// Where the fields of an entry lie.
mod at {
    pub(super) const FORMAT: usize = 4;
    pub(super) const CRC: usize = 8;
    pub(super) const SEQUENCE: usize = 16;
    pub(super) const TIME: usize = 24;
    pub(super) const REASON_LENGTH: usize = 34;
    pub(super) const DIGEST: usize = 56;
    pub(super) const REASON: usize = 88;
}

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
        let mut bytes = [0; STRUCTURE];
        let reason = cut(&self.reason, REASON_MAX);
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, at::FORMAT, &FORMAT.to_le_bytes());
        put(&mut bytes, at::SEQUENCE, &self.sequence.to_le_bytes());
        put(&mut bytes, at::TIME, &self.time.to_le_bytes());
        put(
            &mut bytes,
            at::REASON_LENGTH,
            &u16::try_from(reason.len()).unwrap_or(0).to_le_bytes(),
        );
        put(&mut bytes, at::DIGEST, &self.digest.0);
        put(&mut bytes, at::REASON, reason.as_bytes());
        bytes::seal(&mut bytes, at::CRC);
        bytes
    }

    /// Reads an entry; none if there is no valid one.
    pub fn decode(bytes: &[u8; STRUCTURE]) -> Option<Self> {
        if field(bytes, 0) != MAGIC
            || u16_at(bytes, at::FORMAT) != FORMAT
            || !bytes::is_sealed(bytes, at::CRC)
        {
            return None;
        }
        Some(Self {
            sequence: u64_at(bytes, at::SEQUENCE),
            time: i64::from_le_bytes(field(bytes, at::TIME)),
            digest: Digest(field(bytes, at::DIGEST)),
            reason: text_at(bytes, at::REASON, u16_at(bytes, at::REASON_LENGTH))?,
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
            sequence: taken
                .last()
                .map_or(0, |(_, last)| last.sequence.saturating_add(1)),
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
        scan(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reason: &str) -> QuarantineEntry {
        QuarantineEntry {
            sequence: 3,
            time: 4,
            digest: Digest([5; 32]),
            reason: reason.into(),
        }
    }

    #[test]
    fn an_entry_of_another_kind_or_format_is_none_even_if_it_is_sealed() {
        let good = entry("unhealthy").encode();
        assert_eq!(QuarantineEntry::decode(&good), Some(entry("unhealthy")));
        for at in [0, 4] {
            let mut bytes = good;
            bytes[at] ^= 1;
            bytes::seal(&mut bytes, at::CRC);
            assert_eq!(QuarantineEntry::decode(&bytes), None, "byte {at}");
        }
        let mut torn = good;
        torn[60] ^= 1;
        assert_eq!(QuarantineEntry::decode(&torn), None);
    }

    #[test]
    fn a_reason_ends_where_the_entry_ends() {
        let long = entry(&"x".repeat(600)).encode();
        let read = QuarantineEntry::decode(&long).unwrap();
        assert_eq!(read.reason, "x".repeat(512 - 88));
    }
}
