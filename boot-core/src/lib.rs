//! What every stage of Sternpost agrees on: the formats on the disk, the boot-state record, the A/B
//! state machine, the manifest and the keys that sign it.
//!
//! Bytes come in, values go out. The crate does no I/O of its own: whatever lies on a disk is reached
//! through [`Device`], and the loader's whole decision runs over [`boot::Platform`], so that the loader,
//! the initrd agent, `bootctl` and a simulator on a build host run the same code.
//!
//! | concept | module | page in docs/formats |
//! | --- | --- | --- |
//! | boot-state record, its two copies | [`record`], [`store`] | boot-state.md |
//! | event ring, quarantine ring | [`event`], [`quarantine`] | event-ring.md, quarantine-ring.md |
//! | what may change in a record | [`transition`] | |
//! | how new an image has to be | [`floor`] | boot-state.md, hand-over.md |
//! | what is started next | [`select`], [`boot`] | |
//! | slot header, manifest | [`slot_header`], [`manifest`] | slot-header.md, manifest.md |
//! | signatures | [`dsse`], [`public_key`], [`keyring`], [`trust`], [`verify`] | dsse.md, keyring.md, trust.md |
//! | root filesystem | [`verity`] | verity.md |
//! | bundle, hand-over | [`bundle`], [`hand_over`], [`efi_variable`] | bundle.md, hand-over.md |
//! | disk layout, partition table | [`layout`], [`gpt`] | layout.md |
//! | an ESP and the loader on it | [`esp`], [`pe`], [`device_path`] | esp.md |
//! | what the agent tells the running system | [`boot_report`] | state.md |
//!
//! # Errors
//! Nothing here panics on any input: nothing can fall back after a panic in firmware. Indexing,
//! unchecked arithmetic, `as`, `unwrap` and `expect` are refused by lints.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;
#[cfg(test)]
extern crate std;

// Checkouts share cargo's target directory, and cargo compares times of files: by this, which is another path in each,
// it sees that what is there was built from another checkout's sources.
const _: Option<&str> = option_env!("STERNPOST_SOURCE");

pub mod boot;
pub mod boot_report;
pub mod bundle;
mod bytes;
pub mod calendar;
pub mod device;
pub mod device_path;
pub mod dsse;
pub mod efi_variable;
pub mod esp;
pub mod event;
pub mod floor;
pub mod gpt;
pub mod hand_over;
pub mod hashed;
mod json;
pub mod keyring;
pub mod layout;
pub mod manifest;
pub mod nonce;
pub mod pe;
pub mod public_key;
pub mod quarantine;
pub mod record;
mod ring;
pub mod select;
pub mod slot;
pub mod slot_header;
pub mod store;
#[cfg(feature = "test-support")]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
pub mod test_support;
pub mod text;
pub mod transition;
pub mod trust;
pub mod types;
pub mod verify;
pub mod verity;
pub mod window;

pub use device::Device;
pub use public_key::PublicKey;
pub use slot::{Slot, Target};
pub use types::{Architecture, Digest, KeyringSerial, Nonce, RootHash, SecurityVersion, Version};
pub use window::Window;
