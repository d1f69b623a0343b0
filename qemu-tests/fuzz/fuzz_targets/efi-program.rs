//! A loader's file, as an update brings it or an ESP gives it: its headers, its sections, its checksum. By itself, and as
//! a whole program of which some bytes were changed.
//!
//! What is found lies within the file; once it is sealed it is intact, and with any other byte it is not.
#![no_main]

use arbitrary::Arbitrary;
use boot_core::pe::{EfiProgram, seal};
use boot_core::test_support::program;
use boot_core::types::Architecture;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::Flip;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Program { trust: &'a [u8], changes: Vec<Flip> },
}

fuzz_target!(|input: (Input<'_>, Flip)| {
    let (input, flip) = input;
    let mut bytes = match input {
        Input::Bytes(bytes) => bytes.to_vec(),
        Input::Program { trust, changes } => {
            let mut bytes = program(Architecture::X86_64, trust);
            for change in changes.iter().take(8) {
                change.apply(&mut bytes);
            }
            bytes
        }
    };
    let is_program = EfiProgram::parse(&bytes).is_some_and(|program| {
        for name in [".sptrust", ".text", "", "longer than eight"] {
            assert!(program.section(name).is_none_or(|it| it.end <= bytes.len()));
        }
        program.architecture();
        program.is_intact();
        true
    });
    let before = bytes.len();
    let sealed = seal(&mut bytes);
    assert!(is_program || !sealed);
    assert_eq!(bytes.len(), before);
    if sealed {
        assert!(EfiProgram::parse(&bytes).is_some_and(|program| program.is_intact()));
        let header = bytes[..0x40].to_vec();
        flip.apply(&mut bytes);
        // Another place of the header is another program, which may be whole as well.
        let other = header != bytes[..0x40];
        assert!(other || !EfiProgram::parse(&bytes).is_some_and(|program| program.is_intact()));
    }
});
