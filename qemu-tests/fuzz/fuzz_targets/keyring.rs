//! Keyring chains: docs/formats/keyring.md.
//!
//! Any JSON: nothing is believed that is not signed, memory is bounded. And keyrings alone, which only those who sign
//! can get this far: what is read is written to what is read as the same. Without its signatures a chain reads as with
//! them. All of it in both formats.
#![no_main]

use boot_core::keyring::{CHAIN_MAX, Chain, KEYS_MAX, Keyring};
use boot_core::test_support::{Signers, keyring_chain, keyring_chain_v2, trust, trust_v2};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::memory;

fuzz_target!(|data: &[u8]| {
    let most = data.len().min(CHAIN_MAX) * 64 + (16 << 10);
    let unverified = memory::within(most, || Chain::read_unverified(data));
    for (trust, known) in [
        (trust(), keyring_chain(Signers::default())),
        (trust_v2(), keyring_chain_v2()),
    ] {
        if let Ok(chain) = memory::within(most, || Chain::verify(data, &trust.root, "test")) {
            assert_eq!(unverified.as_ref(), Ok(&chain));
            // Only one thing that the root key ever signed is within reach.
            let known = Chain::verify(&known, &trust.root, "test");
            assert_eq!(Ok(chain.keyring), known.map(|known| known.keyring));
        }
    }
    if let Ok(keyring) = serde_json::from_slice::<Keyring>(data) {
        for set in [&keyring.root, &keyring.signing]
            .into_iter()
            .chain(&keyring.profile)
        {
            assert!((1..=KEYS_MAX).contains(&set.keys().len()));
            assert!((1..=set.keys().len()).contains(&set.threshold().into()));
        }
        let again = serde_json::from_slice::<Keyring>(&keyring.to_payload());
        assert!(again.is_ok_and(|again| again == keyring));
    }
});
