//! The quarantine ring: manifest digests that failed and are not to come back by themselves.
//!
//! 16 entries, each alone in a block, each with a CRC. A free place is used first, then the oldest
//! entry's. Releasing a digest zeroes its block. Byte by byte: docs/formats/quarantine-ring.md.

use alloc::{string::String, vec::Vec};

use crate::{
    bytes::{self, STRUCTURE, field, put, u16_at, u64_at},
    device::{Device, WriteError, retry_write, write_and_read_back},
    event::{cut, scan, text_at},
    store::{BootState, QUARANTINE_RING, STRIDE},
    types::Digest,
};

/// Entries in the ring.
pub const ENTRIES: u64 = 16;

/// Most bytes of the reason.
pub const REASON_MAX: usize = STRUCTURE - REASON_AT;

const MAGIC: [u8; 4] = *b"SPQR";
const FORMAT: u16 = 1;
const CRC_AT: usize = 8;
const REASON_AT: usize = 88;

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
        put(&mut bytes, 4, &FORMAT.to_le_bytes());
        put(&mut bytes, 16, &self.sequence.to_le_bytes());
        put(&mut bytes, 24, &self.time.to_le_bytes());
        put(
            &mut bytes,
            34,
            &u16::try_from(reason.len()).unwrap_or(0).to_le_bytes(),
        );
        put(&mut bytes, 56, &self.digest.0);
        put(&mut bytes, REASON_AT, reason.as_bytes());
        bytes::seal(&mut bytes, CRC_AT);
        bytes
    }

    /// Reads an entry; none if there is no valid one.
    pub fn decode(bytes: &[u8; STRUCTURE]) -> Option<Self> {
        if field(bytes, 0) != MAGIC
            || u16_at(bytes, 4) != FORMAT
            || !bytes::is_sealed(bytes, CRC_AT)
        {
            return None;
        }
        Some(Self {
            sequence: u64_at(bytes, 16),
            time: i64::from_le_bytes(field(bytes, 24)),
            digest: Digest(field(bytes, 56)),
            reason: text_at(bytes, REASON_AT, u16_at(bytes, 34))?,
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
    ///
    /// # Errors
    /// What the device said.
    pub fn quarantined(&mut self) -> Result<Vec<QuarantineEntry>, D::Error> {
        let taken = self.places()?.taken;
        Ok(taken.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Whether `digest` is quarantined, and why.
    ///
    /// # Errors
    /// What the device said.
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
    /// not give back what it was given, is passed over.
    ///
    /// # Errors
    /// What the device said last.
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
        retry_write(in_turn.map(|index| self.write_quarantine(index, &bytes)))
    }

    /// Releases `digest`, and flushes. Returns whether it was quarantined.
    ///
    /// # Errors
    /// What the device said.
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
            bytes::seal(&mut bytes, CRC_AT);
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
