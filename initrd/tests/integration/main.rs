//! The agent's parts that touch a disk, over a disk in memory.

mod growing;
mod memory;
