//! The boot state over any device: the commits, what a verdict changes, and whether a slot would start.

pub mod control;
pub mod root_scan;
pub mod slot_check;
pub mod verdict;
