//! The manifest: docs/formats/manifest.md.
//!
//! What is read makes sense, is written to what is read as the same, and takes memory by the size of the text.
#![no_main]

use boot_core::dsse::PAYLOAD_MAX;
use boot_core::manifest::{CHUNK_SIZE, EVENTS_MAX, Manifest, ManifestError, PCR_MAX, UKI_MAX};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::memory;

fuzz_target!(|data: &[u8]| {
    let most = data.len().min(PAYLOAD_MAX) * 64 + (16 << 10);
    let Ok(manifest) = memory::within(most, || Manifest::parse(data)) else {
        return;
    };
    assert_eq!(manifest.uki.is_some(), manifest.kind.has_uki());
    if let Some(uki) = &manifest.uki {
        assert!((1..=UKI_MAX).contains(&uki.size));
        assert_eq!(uki.chunks.len() as u64, uki.size.div_ceil(CHUNK_SIZE));
    }
    assert_eq!(manifest.root.is_some(), manifest.kind.has_root());
    if let Some(root) = &manifest.root {
        assert!(root.data_blocks() * 4096 == root.data_size && root.size >= root.data_size);
    }
    assert!(manifest.events.len() <= EVENTS_MAX);
    for event in &manifest.events {
        assert!(event.pcr <= PCR_MAX && (1..=64).contains(&event.what.len()));
    }
    match Manifest::parse(&manifest.to_payload()) {
        Ok(again) => assert_eq!(again, manifest),
        // What was left out is written out.
        Err(error) => assert!(matches!(error, ManifestError::TooLarge(_)), "{error}"),
    }
});
