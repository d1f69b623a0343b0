//! The initrd agent: PID 1 of the initramfs. From the loader's hand-over to the system's own init.
//!
//! ```text
//! /init                        this program
//! /sternpost/cmdline           the command line that the image was built with
//! /sternpost/modules.json      the kernel modules that the initramfs has
//! /sternpost/modules/NAME.ko   each of them, uncompressed
//! /sternpost/root.erofs        recovery only: the root filesystem
//! ```
//!
//! [`agent::run`] goes through the steps in order; each is a module here. What can be computed without devices is pure
//! and tested on the host: [`boot_core::gpt`] (over [`boot_core::Device`], so that a crash simulator runs the same code),
//! [`boot_disk::choose`], [`cmdline`], [`modules`], [`persist`], [`state::ext4`], [`dm_verity::table_line`].
//!
//! # Failures
//! Every failure is a [`failure::Failure`]: what, on what, why, what next. [`abort::end`] says it on every console,
//! notes it in the event ring (once the disk is known) and restarts. Two things never end a start: a `state` that cannot
//! be used, and a disk whose table cannot be grown. Both are recorded.
//!
//! # Kernel modules
//! The list is data: recipes/initramfs/modules.toml. `always` (in order), `watchdog` (loaded first), `storage` (loaded
//! when the hardware asks), `recovery`. The builder of the initramfs adds what they depend on and writes modules.json:
//! `{"kernel", "always", "watchdog", "depends", "aliases"}`. Debian's cloud kernels need of it
//! `virtio_blk` (or `virtio_scsi` + `sd_mod`, `ahci` + `sd_mod`; NVMe and ext4 are built in), `efivarfs`,
//! `dm_verity` (`dm_mod`, `dm_bufio`, `reed_solomon`), `erofs` (`libcrc32c`), `overlay`, a CRC-32C
//! (`crc32c_intel` or `crc32c_generic`) and an accelerated SHA-256 (`sha256_ssse3`; `sha2_ce`, `sha256_arm64`); the
//! generic kernels besides these `ext4` (`jbd2`, `mbcache`, `crc16`) and the drivers of real disks.

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

pub mod abort;
pub mod agent;
pub mod block;
pub mod boot_disk;
mod boot_report;
pub mod cmdline;
pub mod console;
pub mod dm_verity;
mod drivers;
pub mod failure;
mod grow_table;
pub mod hand_over;
pub mod hardware;
pub mod machine_id;
pub mod modules;
pub mod new_root;
mod open_root;
pub mod persist;
mod prepare_etc_and_var;
pub mod slot_manifest;
mod start;
pub mod state;
pub mod sys;
pub mod timeline;
pub mod watchdog;
