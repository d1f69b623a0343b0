//! The loader: the firmware stage of Sternpost.
#![cfg_attr(target_os = "uefi", no_std, no_main)]
#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("the loader is a UEFI application: build it for x86_64-unknown-uefi or aarch64-unknown-uefi");
}
