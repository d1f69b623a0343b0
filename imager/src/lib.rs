//! Recipe to signed image and bundle.

pub mod initramfs;
pub mod keys;
