//! The profile of this machine: which one it is, and the part of it that is applied early in the boot.

pub mod apply;
pub mod choose;
