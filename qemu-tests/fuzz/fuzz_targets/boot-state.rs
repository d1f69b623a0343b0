//! The boot-state record and its two copies: docs/formats/boot-state.md.
//!
//! - what decodes encodes to the same bytes, reserved ones included;
//! - which copy is the newest does not depend on where it lies, and is never one that does not decode;
//! - a commit leaves the newest copy alone, unless numbers begin anew, and everything else, and what it wrote is then the newest.
#![no_main]

use boot_core::Device as _;
use boot_core::record::Record;
use boot_core::store::{BootState, COPIES, PARTITION_SIZE};
use boot_core::types::NUMBERS_END;
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::disk::Sparse;
use sternpost_fuzz::structure;

/// Magic, format 1, length 512.
const HEAD: &[u8] = b"STRNPOST\x01\0\0\x02";

fuzz_target!(|data: &[u8]| {
    let (first, second) = data.split_at(data.len() / 2);
    let copies = [first, second].map(|half| structure::<512>(half, HEAD, 12));
    let decoded = copies.map(|bytes| Record::decode(&bytes));
    for (bytes, record) in copies.iter().zip(&decoded) {
        if let Ok(record) = record {
            assert_eq!(record.encode(), *bytes);
        }
    }
    let disk = |copies: [[u8; 512]; 2]| {
        let mut disk = Sparse::new(PARTITION_SIZE, 512);
        COPIES
            .iter()
            .zip(copies)
            .for_each(|(at, bytes)| disk.put(*at, &bytes));
        BootState::new(disk)
    };
    let mut store = disk(copies);
    let loaded = store.load();
    let swapped = disk([copies[1], copies[0]]).load();
    assert_eq!(loaded.record, swapped.record);
    let newest = decoded.iter().flatten().map(|record| record.sequence).max();
    assert_eq!(loaded.record.as_ref().map(|record| record.sequence), newest);
    let Some(record) = loaded.record else {
        return;
    };
    let kept = loaded.newest.expect("there is a newest");
    let written = store.commit(&record).expect("the disk refuses nothing");
    let numbers_begin_anew = record.sequence == NUMBERS_END - 1;
    let next = if numbers_begin_anew {
        2
    } else {
        record.sequence + 1
    };
    assert_eq!(written.sequence, next);
    assert_eq!(store.load().record, Some(written));
    let mut newest_before = [0; 512];
    let device = store.device_mut();
    device
        .read_at(COPIES[kept], &mut newest_before)
        .expect("it is there");
    assert!(numbers_begin_anew || newest_before == copies[kept]);
});
