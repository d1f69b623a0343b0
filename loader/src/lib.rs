//! The parts of the loader that need no firmware: bytes in, values out. See `main.rs` for the program.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod calendar;
pub mod gpt;
pub mod nonce;
