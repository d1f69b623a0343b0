//! The superblock of `state`, as the initrd agent looks at it before it mounts: docs/formats/state.md.
#![no_main]

use initrd::state::ext4::{NEEDED, parse};
use libfuzzer_sys::fuzz_target;

const MAGIC_AT: usize = 1024 + 56;

fuzz_target!(|data: &[u8]| {
    let _ = parse(data);
    let Some((now, superblock)) = data.split_first_chunk::<8>() else {
        return;
    };
    let mut bytes = vec![0; NEEDED];
    let length = superblock.len().min(1024);
    bytes[1024..1024 + length].copy_from_slice(&superblock[..length]);
    bytes[MAGIC_AT..MAGIC_AT + 2].copy_from_slice(&0xef53_u16.to_le_bytes());
    if let Ok(found) = parse(&bytes) {
        assert!(found.block_size.is_power_of_two());
        assert!((1024..=65536).contains(&found.block_size));
        let _ = found.check_due(u64::from_le_bytes(*now));
    }
});
