//! Recipe to signed image and bundle.
//!
//! The host side (what turns packages and sources into a root filesystem) is [`cache`],
//! [`sandbox`], [`tools`], [`step`], [`recipe`], [`lock`], [`packages`], [`sources`] and [`root`].

pub mod accel;
pub mod arch;
pub mod assemble;
pub mod bundle;
pub mod cache;
pub mod commands;
pub mod disk;
pub mod filesystems;
pub mod gpt;
pub mod image_files;
pub mod initramfs;
pub mod inspect;
pub mod keys;
pub mod listed;
pub mod loader;
pub mod lock;
pub mod modules;
pub mod oci;
pub mod outputs;
pub mod packages;
pub mod programs;
pub mod qemu;
pub mod recipe;
pub mod region;
pub mod root;
pub mod sandbox;
pub mod signing;
pub mod sources;
pub mod step;
pub mod stub;
pub mod tool;
pub mod tools;
pub mod tree;
pub mod uki;
pub mod verify;
pub mod verity;
