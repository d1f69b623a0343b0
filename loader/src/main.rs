//! The loader: the firmware stage of Sternpost, a UEFI application for x86_64 and aarch64.
//!
//! What it does is in [`app`]; what needs no firmware is in `boot-core` and in the crate `hardware-timer`.
#![cfg_attr(target_os = "uefi", no_std, no_main)]
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

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod app;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!(
        "the loader is a UEFI application: build it for x86_64-unknown-uefi or aarch64-unknown-uefi"
    );
}
