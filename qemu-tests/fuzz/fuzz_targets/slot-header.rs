//! The slot header, and reading what it points to: docs/formats/slot-header.md.
//!
//! - what decodes encodes to what decodes to the same;
//! - nothing outside the partition is read, however large the numbers are, and memory is bounded by the format's limits.
#![no_main]

use boot_core::dsse::ENVELOPE_MAX;
use boot_core::keyring::CHAIN_MAX;
use boot_core::slot_header::{ALIGNMENT, ReadSlotError, SlotHeader, read_slot};
use libfuzzer_sys::fuzz_target;
use sternpost_fuzz::disk::Sparse;
use sternpost_fuzz::{memory, structure};

/// Magic, format 1.
const HEAD: &[u8] = b"SPSLOTHD\x01\0";

fuzz_target!(|data: &[u8]| {
    let Some((size, data)) = data.split_first_chunk::<5>() else {
        return;
    };
    let [block, size @ ..] = *size;
    let block_size = if block & 1 == 0 { 512 } else { 4096 };
    let size = u64::from(u32::from_le_bytes(size)) * 4096;
    let bytes = structure::<512>(data, HEAD, 12);
    if let Ok(header) = SlotHeader::decode(&bytes) {
        assert_eq!(SlotHeader::decode(&header.encode()), Ok(header));
    }
    let mut disk = Sparse::new(size, block_size);
    disk.put(0, &bytes);
    let most = ENVELOPE_MAX + CHAIN_MAX + (16 << 10);
    match memory::within(most, || read_slot(&mut disk)) {
        Ok(parts) => {
            let header = &parts.header;
            assert_eq!(parts.envelope.len(), header.envelope_length as usize);
            assert_eq!(parts.keyring.len(), header.keyring_length as usize);
            assert!(header.uki_offset + header.uki_length <= size);
            assert!(header.uki_offset.is_multiple_of(ALIGNMENT));
        }
        // Of a partition that has not even room for a header, and of nothing else.
        Err(ReadSlotError::Device(refused)) => assert!(size < 4096, "{refused}"),
        Err(ReadSlotError::Header(_)) => {}
    }
});
