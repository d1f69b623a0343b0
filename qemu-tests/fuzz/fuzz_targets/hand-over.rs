//! The loader's hand-over, as efivarfs shows it: docs/formats/hand-over.md.
//!
//! What is read is written to what is read as the same; a variable that was stored is not read.
#![no_main]

use boot_core::efi_variable::of_this_start;
use boot_core::hand_over::HandOver;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = of_this_start(data) {
        assert!(data[0] & 1 == 0 && data[0] & 4 != 0);
        assert_eq!(value, &data[4..]);
    }
    if let Ok(hand_over) = HandOver::from_json(data) {
        for shorter in hand_over.encodings() {
            assert!(HandOver::from_json(&shorter).is_ok());
        }
        assert_eq!(HandOver::from_json(&hand_over.to_json()), Ok(hand_over));
    }
});
