//! The event ring: docs/formats/event-ring.md.
//!
//! - what is read is numbered as its place says, in order, and one line that a terminal may be shown;
//! - what is appended is read back as the last, and nothing but its place is written.
#![no_main]

use arbitrary::Arbitrary;
use boot_core::event::{ENTRIES, Event, EventKind, Stage, TEXT_MAX};
use boot_core::store::{BootState, EVENT_RING, PARTITION_SIZE, STRIDE};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::disk::Sparse;
use sternpost_fuzz::ring_entry;

/// Magic, format 1.
const HEAD: &[u8] = b"SPEV\x01\0";
/// What this build still believes, and one less: what follows it must be believed, too.
const LAST: u64 = (u64::MAX >> 1) - 1;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Number, bytes, and text.
    entries: Vec<(u64, &'a [u8], &'a [u8])>,
    append: &'a str,
}

fuzz_target!(|input: Input<'_>| {
    let mut disk = Sparse::new(PARTITION_SIZE, 512);
    for (number, data, text) in &input.entries {
        let mut entry = ring_entry(data, HEAD, text);
        if entry.starts_with(HEAD) {
            entry[16..24].copy_from_slice(&number.to_le_bytes());
            sternpost_fuzz::seal(&mut entry, 8);
        }
        disk.put(EVENT_RING + number % ENTRIES * STRIDE, &entry);
    }
    let before = disk.clone();
    let mut store = BootState::new(disk);
    let events = store.events().expect("the disk is well");
    assert!(events.is_sorted_by(|one, next| one.sequence < next.sequence));
    for event in &events {
        assert!(!event.text.chars().any(char::is_control));
        assert!(!bootctl::os::clock::format(event.time).is_empty());
        let again = Event::decode(&event.encode()).expect("it was written by us");
        // Bytes that are not UTF-8 become longer, and are cut.
        assert!(event.text.starts_with(&again.text));
        assert_eq!(
            Event {
                text: String::new(),
                ..again
            },
            Event {
                text: String::new(),
                ..event.clone()
            }
        );
    }
    if events.last().is_some_and(|last| last.sequence > LAST) {
        return;
    }
    let event = Event::new(Stage::BOOTCTL, EventKind::DEGRADED, input.append);
    store.append_event(&event).expect("the disk is well");
    let after = store.events().expect("the disk is well");
    let last = after.last().expect("one was appended");
    assert_eq!(
        last.sequence,
        events.last().map_or(0, |last| last.sequence + 1)
    );
    assert!(last.text.len() <= TEXT_MAX && last.text.chars().count() <= event.text.chars().count());
    let place = (EVENT_RING + last.sequence % ENTRIES * STRIDE) / 512;
    assert_eq!(store.device_mut().differs(&before), [place]);
});
