//! A bundle's header and frame table: docs/formats/bundle.md.
//!
//! What decodes encodes to what decodes to the same; parts lie one after the other and their lengths are within bounds.
#![no_main]

use boot_core::bundle::{HEADER_SIZE, Header};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::{install, structure};

/// Magic, format 1, no flags.
const HEAD: &[u8] = b"SPBUNDLE\x01\0\0\0";

fuzz_target!(|data: &[u8]| {
    install::table(data);
    let Ok(header) = Header::decode(&structure::<HEADER_SIZE>(data, HEAD, 12)) else {
        return;
    };
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    let ends = [
        header.envelope_offset(),
        header.keyring_offset(),
        header.table_offset(),
        header.leaves_offset(),
        header.frames_offset(),
    ];
    assert!(ends.is_sorted());
    assert!(header.table_offset() + header.table_length() == header.leaves_offset());
    assert!(header.frames_offset() < 4 << 30);
});
