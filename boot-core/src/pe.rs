//! As much of a PE file as it takes to know a loader: what machine it is for, and where its trust section is.
//!
//! Source: Microsoft's "PE Format"; every offset is from there.

use core::ops::Range;

use crate::{
    bytes::{field, memory_len, u16_at, u32_at},
    types::Architecture,
};

const DOS_MAGIC: [u8; 2] = *b"MZ";
const HEADER_AT: usize = 0x3c;
const SIGNATURE: [u8; 4] = *b"PE\0\0";
/// Signature and COFF header.
const COFF: usize = 24;
const PE32_PLUS: u16 = 0x20b;
const SUBSYSTEM: usize = 68;
const EFI_APPLICATION: u16 = 10;
const SECTION: usize = 40;

/// A UEFI application, as its headers describe it.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    bytes: &'a [u8],
    /// Where the COFF header's signature is.
    header: usize,
}

impl<'a> Program<'a> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::program;

    #[test]
    fn a_section_is_found_by_its_name() {
        let bytes = program(Architecture::Aarch64, b"trust goes here");
        let found = Program::parse(&bytes).unwrap();
        assert_eq!(found.architecture(), Some(Architecture::Aarch64));
        let range = found.section(".sptrust").unwrap();
        assert_eq!(bytes.get(range).unwrap(), b"trust goes here");
        assert_eq!(found.section(".text"), None);
        assert_eq!(found.section("much too long"), None);
    }

    #[test]
    fn what_is_cut_short_is_no_program_or_has_no_section() {
        let bytes = program(Architecture::X86_64, b"trust goes here");
        for end in 0..bytes.len() {
            let section = Program::parse(bytes.get(..end).unwrap())
                .and_then(|program| program.section(".sptrust"));
            assert_eq!(section, None, "{end}");
        }
        let mut driver = bytes;
        driver[0x40 + COFF + SUBSYSTEM] = 11;
        assert!(Program::parse(&driver).is_none());
    }
}
