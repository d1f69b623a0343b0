//! The agent's parts that touch a disk, over a disk in memory.

#![allow(clippy::unwrap_used)]

mod growing;
mod memory;
