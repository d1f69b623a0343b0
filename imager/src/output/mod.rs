//! What leaves the workshop: the disk image with its partitions, and bundles.

pub mod bundle;
pub mod disk;
pub mod frames;
pub mod gpt;
pub mod image;
pub mod state;
pub mod verity;
