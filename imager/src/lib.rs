//! Recipe to signed image and bundle.
//!
//! The host side (what turns packages and sources into a root filesystem) is [`cache`],
//! [`sandbox`], [`tools`], [`step`], [`recipe`], [`lock`], [`packages`], [`sources`] and [`root`].

pub mod arch;
pub mod cache;
pub mod gpt;
pub mod initramfs;
pub mod keys;
pub mod lock;
pub mod modules;
pub mod oci;
pub mod packages;
pub mod qemu;
pub mod recipe;
pub mod root;
pub mod sandbox;
pub mod sources;
pub mod step;
pub mod tools;
