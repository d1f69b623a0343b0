//! DSSE envelopes: docs/formats/dsse.md.
//!
//! - what is read is written to what is read as the same;
//! - its limits hold, and memory is bounded by the size of the text.
#![no_main]

use boot_core::dsse::{ENVELOPE_MAX, Envelope, PAYLOAD_MAX, SIGNATURES_MAX};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::memory;

fuzz_target!(|data: &[u8]| {
    let most = data.len() * 64 + (16 << 10);
    let Ok(envelope) = memory::within(most, || Envelope::parse(data)) else {
        return;
    };
    assert!(data.len() <= ENVELOPE_MAX && envelope.payload.len() <= PAYLOAD_MAX);
    assert!(envelope.signatures.len() <= SIGNATURES_MAX);
    let json = envelope.to_json();
    if json.len() <= ENVELOPE_MAX {
        assert_eq!(Envelope::parse(&json), Ok(envelope));
    }
});
