//! The quarantine ring: docs/formats/quarantine-ring.md.
//!
//! - what is quarantined is found; what is released is not;
//! - no other digest comes or goes, but for the oldest when the ring is full.
#![no_main]

use arbitrary::Arbitrary;
use boot_core::Digest;
use boot_core::quarantine::{ENTRIES, QuarantineEntry};
use boot_core::store::{BootState, PARTITION_SIZE, QUARANTINE_RING, STRIDE};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::disk::Sparse;
use sternpost_fuzz::ring_entry;

/// Magic, format 1.
const HEAD: &[u8] = b"SPQR\x01\0";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Place, bytes, and text.
    entries: Vec<(u8, &'a [u8], &'a [u8])>,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Quarantine(u8, &'a str),
    Release(u8),
}

fn digests(store: &mut BootState<Sparse>) -> Vec<Digest> {
    let entries = store.quarantined().expect("the disk is well");
    entries.iter().map(|entry| entry.digest).collect()
}

fuzz_target!(|input: Input<'_>| {
    let mut disk = Sparse::new(PARTITION_SIZE, 512);
    for (place, data, text) in &input.entries {
        let place = u64::from(*place) % ENTRIES;
        disk.put(
            QUARANTINE_RING + place * STRIDE,
            &ring_entry(data, HEAD, text),
        );
    }
    let mut store = BootState::new(disk);
    let entries = store.quarantined().expect("the disk is well");
    for entry in entries {
        assert!(!entry.reason.chars().any(char::is_control));
        let again = QuarantineEntry::decode(&entry.encode()).expect("it was written by us");
        assert!(entry.reason.starts_with(&again.reason));
        assert_eq!(
            (again.digest, again.sequence),
            (entry.digest, entry.sequence)
        );
    }
    for step in input.steps.iter().take(40) {
        let before = digests(&mut store);
        match step {
            Step::Quarantine(number, reason) => {
                let digest = Digest([*number; 32]);
                store
                    .quarantine(&digest, reason, 0)
                    .expect("the disk is well");
                let after = digests(&mut store);
                assert!(after.contains(&digest));
                assert!(after.len() as u64 <= ENTRIES);
                let lost = before.iter().filter(|it| !after.contains(it)).count();
                let full = before.len() as u64 == ENTRIES && !before.contains(&digest);
                assert!(lost <= usize::from(full), "{lost} were lost");
            }
            Step::Release(number) => {
                let digest = Digest([*number; 32]);
                assert_eq!(store.release(&digest), Ok(before.contains(&digest)));
                let kept: Vec<_> = before.into_iter().filter(|it| *it != digest).collect();
                assert_eq!(digests(&mut store), kept);
            }
        }
    }
});
