//! Boots an image in QEMU.

pub mod accelerator;
pub mod qemu;
