//! Where the loader reads from: what lies under which label, and what the hand-over calls the whole.
//!
//! The disk that it was loaded from is the only one there is so far ([`BootDisk`](super::boot_disk::BootDisk)), and the
//! only one that has a record: a medium that cannot be written has none, and what starts from it is not counted.

use alloc::string::String;

use boot_core::{Device, Target};

/// What slots are read from.
pub(super) trait Medium {
    /// What lies under a label.
    type Part: Device;

    /// What tells it from others, for the initrd to find it again: a disk's GUID.
    fn id(&self) -> String;

    /// The record and its rings, where there are any; else why not.
    fn boot_state(&self) -> Result<Self::Part, String>;

    /// The slot header of `target` and what follows it; else why there is none.
    fn slot(&self, target: Target) -> Result<Self::Part, String>;
}
