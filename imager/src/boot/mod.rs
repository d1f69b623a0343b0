//! What starts a root: the loader on the ESPs, and the UKI with its initramfs in the slot.

pub mod initramfs;
pub mod loader;
pub mod modules;
pub mod stub;
pub mod uki;
