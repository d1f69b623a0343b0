//! Debian's packages: which ones exactly, and where they are kept.

pub mod archive;
pub mod lock;
