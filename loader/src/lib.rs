//! The parts of the loader that need no firmware: bytes in, values out. See `main.rs` for the program.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// A panic in the boot path leaves nobody to fall back: what can panic is refused.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

extern crate alloc;

pub mod calendar;
pub mod gpt;
pub mod nonce;
