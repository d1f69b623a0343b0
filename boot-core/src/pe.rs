//! As much of a PE file as it takes to know a loader: what machine it is for, where its trust section is, and whether
//! its bytes are those that were written; and what a TPM's event log says of a program that is loaded.
//!
//! Source: Microsoft's "PE Format"; every offset is from there.

use core::ops::Range;

use crate::{
    bytes::{field, memory_len, put, u8_at, u16_at, u32_at, u64_at},
    types::Architecture,
};

const DOS_MAGIC: [u8; 2] = *b"MZ";
const HEADER_AT: usize = 0x3c;
const SIGNATURE: [u8; 4] = *b"PE\0\0";
/// Signature and COFF header.
const COFF: usize = 24;
const PE32_PLUS: u16 = 0x20b;
const IMAGE_BASE: usize = 24;
const CHECKSUM: usize = 64;
const SUBSYSTEM: usize = 68;
const EFI_APPLICATION: u16 = 10;
const SECTION: usize = 40;

/// Bytes of [`EfiProgram::load_event`].
pub const LOAD_EVENT: usize = 32;

/// A UEFI application, as its headers describe it.
#[derive(Clone, Copy, Debug)]
pub struct EfiProgram<'a> {
    bytes: &'a [u8],
    /// Where the COFF header's signature is.
    header: usize,
}

impl<'a> EfiProgram<'a> {
    /// Finds the headers; none if these are not the bytes of a UEFI application.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if field(bytes, 0) != DOS_MAGIC {
            return None;
        }
        let header = memory_len(u32_at(bytes, HEADER_AT).into());
        let optional = header.checked_add(COFF)?;
        let is_application = field(bytes, header) == SIGNATURE
            && u16_at(bytes, optional) == PE32_PLUS
            && u16_at(bytes, optional.checked_add(SUBSYSTEM)?) == EFI_APPLICATION;
        is_application.then_some(Self { bytes, header })
    }

    /// The machines that it runs on; none if we know no such machine.
    pub fn architecture(&self) -> Option<Architecture> {
        match u16_at(self.bytes, self.header.checked_add(4)?) {
            0x8664 => Some(Architecture::X86_64),
            0xaa64 => Some(Architecture::Aarch64),
            _ => None,
        }
    }

    /// Whether the file has the checksum that its header says. It finds damage; an attacker can make it hold.
    pub fn is_intact(&self) -> bool {
        let sum = self.checksum();
        sum.is_some_and(|(at, sum)| u32_at(self.bytes, at) == sum)
    }

    /// Where the checksum is, and what it has to be: the sum of all words of 16 bits but its own, carries added in,
    /// and the length of the file.
    fn checksum(&self) -> Option<(usize, u32)> {
        let at = self.header.checked_add(COFF)?.checked_add(CHECKSUM)?;
        let (before, rest) = self.bytes.split_at_checked(at)?;
        let after = rest.get(4..)?;
        // Its own four bytes count as zeros. The COFF header is aligned, so that no word crosses them.
        let words = before.chunks(2).chain(after.chunks(2));
        let sum = words.fold(0_u32, |sum, word| {
            // A file of odd length ends in half a word.
            let word = u16::from_le_bytes([u8_at(word, 0), u8_at(word, 1)]);
            let sum = sum.saturating_add(word.into());
            (sum & 0xffff).saturating_add(sum >> 16)
        });
        let length = u32::try_from(self.bytes.len()).ok()?;
        Some((at, sum.saturating_add(length)))
    }

    /// What the event log has beside the measurement of this program, when it is loaded from `address` and not from a
    /// file: UEFI_IMAGE_LOAD_EVENT (TCG PC Client Platform Firmware Profile), without a device path.
    pub fn load_event(&self, address: u64) -> Option<[u8; LOAD_EVENT]> {
        let base = self.header.checked_add(COFF)?.checked_add(IMAGE_BASE)?;
        let length = u64::try_from(self.bytes.len()).ok()?;
        let mut event = [0; LOAD_EVENT];
        // The last field, the length of the device path, stays zero.
        let fields = [address, length, u64_at(self.bytes, base)];
        for (place, value) in event.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        Some(event)
    }

    /// Where the bytes of the section `name` are in the file.
    pub fn section(&self, name: &str) -> Option<Range<usize>> {
        let coff = self.header;
        let count = usize::from(u16_at(self.bytes, coff.checked_add(6)?));
        let optional = usize::from(u16_at(self.bytes, coff.checked_add(20)?));
        let table = coff.checked_add(COFF)?.checked_add(optional)?;
        let sections = self.bytes.get(table..)?.chunks_exact(SECTION).take(count);
        let mut padded = [0; 8];
        padded
            .get_mut(..name.len())?
            .copy_from_slice(name.as_bytes());
        let section = sections.into_iter().find(|it| field(it, 0) == padded)?;
        let start = memory_len(u32_at(section, 20).into());
        let end = start.checked_add(memory_len(u32_at(section, 16).into()))?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// Writes the checksum into a program whose bytes were changed; false if it is none.
pub fn seal(bytes: &mut [u8]) -> bool {
    let sum = EfiProgram::parse(bytes).and_then(|program| program.checksum());
    if let Some((at, sum)) = sum {
        put(bytes, at, &sum.to_le_bytes());
    }
    sum.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::program;

    #[test]
    fn every_flipped_bit_is_noticed() {
        for length in [15, 16] {
            let mut bytes = program(Architecture::X86_64, &[7; 16][..length]);
            assert!(seal(&mut bytes) && EfiProgram::parse(&bytes).unwrap().is_intact());
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let intact = EfiProgram::parse(&bytes).is_some_and(|program| program.is_intact());
                assert!(!intact, "bit {bit} of {length}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            bytes.push(0);
            assert!(!EfiProgram::parse(&bytes).unwrap().is_intact());
        }
        assert!(!seal(&mut [0; 64]));
    }

    #[test]
    fn the_checksum_is_that_of_the_format() {
        // By hand: the words of the headers below, with the carry, and the length.
        let mut bytes = program(Architecture::X86_64, &[]);
        let words = bytes.chunks(2).enumerate();
        let others = words.filter(|(at, _)| !(0x58 + 64..0x58 + 68).contains(&(at * 2)));
        let plain: u64 = others
            .map(|(_, it)| u64::from(it[0]) + (u64::from(it[1]) << 8))
            .sum();
        let folded = plain % 0xffff;
        assert!(seal(&mut bytes));
        assert_eq!(
            u64::from(u32_at(&bytes, 0x58 + 64)),
            folded + bytes.len() as u64
        );
    }

    #[test]
    fn a_section_is_found_by_its_name() {
        let bytes = program(Architecture::Aarch64, b"trust goes here");
        let found = EfiProgram::parse(&bytes).unwrap();
        assert_eq!(found.architecture(), Some(Architecture::Aarch64));
        let range = found.section(".sptrust").unwrap();
        assert_eq!(bytes.get(range).unwrap(), b"trust goes here");
        assert_eq!(found.section(".text"), None);
        assert_eq!(found.section("much too long"), None);
    }

    #[test]
    fn the_event_of_loading_it_says_where_how_long_and_for_which_address_it_was_linked() {
        let mut bytes = program(Architecture::X86_64, b"");
        bytes[0x40 + 24 + 24..][..8].copy_from_slice(&0x1_4000_0000_u64.to_le_bytes());
        let event = EfiProgram::parse(&bytes).unwrap().load_event(0x7e00_1000);
        let length = 0x40 + 24 + 240 + 40_u64;
        let fields = [0x7e00_1000, length, 0x1_4000_0000, 0].map(u64::to_le_bytes);
        assert_eq!(event.unwrap().as_slice(), fields.as_flattened());
    }

    #[test]
    fn what_is_cut_short_is_no_program_or_has_no_section() {
        let bytes = program(Architecture::X86_64, b"trust goes here");
        for end in 0..bytes.len() {
            let section = EfiProgram::parse(bytes.get(..end).unwrap())
                .and_then(|program| program.section(".sptrust"));
            assert_eq!(section, None, "{end}");
        }
        let mut driver = bytes;
        driver[0x40 + COFF + SUBSYSTEM] = 11;
        assert!(EfiProgram::parse(&driver).is_none());
    }
}
