//! What the event ring and the quarantine ring share: entries, each alone in a block, each with a CRC.
//!
//! ```text
//! 0 magic │ 4 format │ 8 CRC │ 16 number │ 24 time │ 34 length of the text │ 56 digest │ 88 text
//! ```
//!
//! What lies between is zero, or a ring's own.

use alloc::{string::String, vec};

use crate::{
    bytes::{self, STRUCTURE, field, put, u16_at, u64_at},
    device::Device,
    store::STRIDE,
    text,
    types::{Digest, LAST_NUMBER, NUMBERS_END},
};

/// Most bytes of text in an entry.
pub(crate) const TEXT_MAX: usize = STRUCTURE - at::TEXT;

const FORMAT: u16 = 1;

/// Where the fields of an entry lie.
mod at {
    pub(super) const FORMAT: usize = 4;
    pub(super) const CRC: usize = 8;
    pub(super) const SEQUENCE: usize = 16;
    pub(super) const TIME: usize = 24;
    pub(super) const TEXT_LENGTH: usize = 34;
    pub(super) const DIGEST: usize = 56;
    pub(super) const TEXT: usize = 88;
}

/// What every entry has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Common<T> {
    /// Its number: rises by one with each.
    pub(crate) sequence: u64,
    /// Seconds since 1970, zero if the clock was not known.
    pub(crate) time: i64,
    /// Digest of the manifest that it is about.
    pub(crate) digest: Digest,
    /// One line for a person.
    pub(crate) text: T,
}

impl<T: AsRef<str>> Common<T> {
    /// The bytes of the entry, the text cut to [`TEXT_MAX`] bytes; `own` puts in what is the ring's own.
    pub(crate) fn encode(
        &self,
        magic: [u8; 4],
        own: impl FnOnce(&mut [u8; STRUCTURE]),
    ) -> [u8; STRUCTURE] {
        let mut bytes = [0; STRUCTURE];
        let text = text::cut(self.text.as_ref(), TEXT_MAX);
        let length = u16::try_from(text.len()).unwrap_or(0);
        put(&mut bytes, 0, &magic);
        put(&mut bytes, at::FORMAT, &FORMAT.to_le_bytes());
        put(&mut bytes, at::SEQUENCE, &self.sequence.to_le_bytes());
        put(&mut bytes, at::TIME, &self.time.to_le_bytes());
        put(&mut bytes, at::TEXT_LENGTH, &length.to_le_bytes());
        put(&mut bytes, at::DIGEST, &self.digest.0);
        put(&mut bytes, at::TEXT, text.as_bytes());
        own(&mut bytes);
        bytes::seal(&mut bytes, at::CRC);
        bytes
    }
}

impl Common<String> {
    /// Reads it; none if there is no valid entry of the ring with this magic.
    pub(crate) fn decode(magic: [u8; 4], bytes: &[u8; STRUCTURE]) -> Option<Self> {
        if field(bytes, 0) != magic
            || u16_at(bytes, at::FORMAT) != FORMAT
            || !bytes::is_sealed(bytes, at::CRC)
        {
            return None;
        }
        let sequence = Some(u64_at(bytes, at::SEQUENCE)).filter(|it| *it < NUMBERS_END)?;
        Some(Self {
            sequence,
            time: i64::from_le_bytes(field(bytes, at::TIME)),
            digest: Digest(field(bytes, at::DIGEST)),
            text: text_at(bytes, at::TEXT, u16_at(bytes, at::TEXT_LENGTH))?,
        })
    }
}

/// The number that comes after `last`, the greatest in a ring. The last of all is given again: it stays readable.
pub(crate) fn next_number(last: Option<u64>) -> u64 {
    last.map_or(0, |last| last.saturating_add(1).min(LAST_NUMBER))
}

/// The text of `len` bytes at `at`, on one line; none if it does not fit.
///
/// Anybody who can write to the disk can write it, and it is shown on terminals: control characters become spaces.
fn text_at(bytes: &[u8], at: usize, len: u16) -> Option<String> {
    let text = bytes.get(at..)?.get(..usize::from(len))?;
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    Some(String::from_utf8_lossy(text).chars().map(shown).collect())
}

/// Every entry of a ring at `offset`: (index, its 512 bytes, or none if they cannot be read). One read for 16 entries;
/// where that fails, one for each of them, because one bad sector must not cost the whole ring.
///
/// # Errors
/// What the device said, if no entry can be read.
pub(crate) fn scan<D: Device>(
    device: &mut D,
    offset: u64,
    entries: u64,
    mut each: impl FnMut(u64, Option<&[u8; STRUCTURE]>),
) -> Result<(), D::Error> {
    const AT_ONCE: u64 = 16;
    let stride = bytes::memory_len(STRIDE);
    let at = |index: u64| offset.saturating_add(index.saturating_mul(STRIDE));
    let mut chunk = vec![0; bytes::memory_len(AT_ONCE.saturating_mul(STRIDE))];
    let mut refused = None;
    let mut any = false;
    for first in (0..entries).step_by(bytes::memory_len(AT_ONCE)) {
        let whole = device.read_at(at(first), &mut chunk).is_ok();
        for (entry, index) in chunk.chunks_exact_mut(stride).zip(first..) {
            if !whole && let Err(error) = device.read_at(at(index), entry) {
                refused = Some(error);
                each(index, None);
                continue;
            }
            any = true;
            each(index, entry.first_chunk());
        }
    }
    match refused {
        Some(error) if !any => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"TEST";

    fn entry(text: &str) -> [u8; STRUCTURE] {
        let common = Common {
            sequence: 3,
            time: 4,
            digest: Digest([5; 32]),
            text,
        };
        common.encode(MAGIC, |_| ())
    }

    fn text(bytes: &[u8; STRUCTURE]) -> Option<String> {
        Some(Common::decode(MAGIC, bytes)?.text)
    }

    #[test]
    fn an_entry_of_another_kind_or_format_is_none_even_if_it_is_sealed() {
        let sound = entry("unhealthy");
        assert_eq!(text(&sound).as_deref(), Some("unhealthy"));
        let changed = |at: usize, seal: bool| {
            let mut bytes = sound;
            bytes[at] ^= 1;
            if seal {
                bytes::seal(&mut bytes, at::CRC);
            }
            text(&bytes)
        };
        assert_eq!([changed(0, true), changed(at::FORMAT, true)], [None, None]);
        assert_eq!(
            [changed(at::DIGEST, false), changed(at::TEXT, false)],
            [None, None]
        );
        assert!(changed(at::TEXT, true).is_some());
    }

    #[test]
    fn a_number_that_none_gets_is_no_entry_and_none_is_given() {
        let numbered = |sequence| {
            let mut bytes = entry("unhealthy");
            put(&mut bytes, at::SEQUENCE, &u64::to_le_bytes(sequence));
            bytes::seal(&mut bytes, at::CRC);
            text(&bytes).is_some()
        };
        let numbers = [LAST_NUMBER, NUMBERS_END, u64::MAX];
        assert_eq!(numbers.map(numbered), [true, false, false]);
        let next = [None, Some(3), Some(LAST_NUMBER)].map(next_number);
        assert_eq!(next, [0, 4, LAST_NUMBER]);
    }

    #[test]
    fn a_text_ends_where_the_entry_ends() {
        let long = entry(&"x".repeat(600));
        assert_eq!(text(&long), Some("x".repeat(512 - 88)));
    }
}
