//! The root of trust, in the loader's section and as JSON: docs/formats/trust.md.
//!
//! What is read is written to what is read as the same.
#![no_main]

use boot_core::trust::{SECTION_MAGIC, SECTION_SIZE, Trust, TrustError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Trust::from_section(data);
    let read = Trust::from_json(data);
    let mut section = SECTION_MAGIC.to_vec();
    section.extend((data.len() as u32).to_le_bytes());
    section.extend(data);
    match Trust::from_section(&section) {
        Ok(trust) => {
            assert_eq!(Ok(&trust), read.as_ref());
            assert!(!trust.summary().is_empty());
            match trust.to_section() {
                Ok(section) => {
                    assert_eq!(section.len(), SECTION_SIZE);
                    assert_eq!(Trust::from_section(&section), Ok(trust));
                }
                Err(error) => assert!(matches!(error, TrustError::TooLarge(_)), "{error}"),
            }
        }
        Err(error) => assert!(data.is_empty() || Err(error) == read),
    }
});
