//! The layout of a disk, of any sizes: docs/formats/layout.md.
//!
//! Partitions lie one after the other, aligned, as large as was asked for, within the disk.
#![no_main]

use boot_core::layout::{ALIGNMENT, Sizes, plan};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u64; 4], bool)| {
    let ([boot, recovery, root, state], large) = input;
    let sizes = Sizes {
        boot,
        recovery,
        root,
        state,
    };
    let Ok(plan) = plan(&sizes, if large { 4096 } else { 512 }) else {
        return;
    };
    let mut end = ALIGNMENT;
    for partition in &plan.partitions {
        assert!(partition.start == end && partition.size > 0);
        assert!(partition.size.is_multiple_of(ALIGNMENT));
        end = partition.start + partition.size;
    }
    assert!(end + ALIGNMENT <= plan.disk_size);
    for (label, wanted) in [
        ("boot-b", boot),
        ("boot-r", recovery),
        ("root-a", root),
        ("state", state),
    ] {
        let part = boot_core::layout::Label::from_label(label).expect("it is one");
        assert!(plan.partition(part).is_some_and(|it| it.size >= wanted));
    }
});
