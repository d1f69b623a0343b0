//! `state`: whose it is, whether the last run on it ended cleanly, and making it anew.

pub mod erase;
pub mod owner;
pub mod shutdown_marker;
