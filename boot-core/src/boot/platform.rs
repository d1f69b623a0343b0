//! What the loader needs of the machine, and what it gets back.

use alloc::string::String;
use core::fmt;

use super::variable::{Answer, FloorVariable, Write};
use crate::{
    device::Device,
    select::Why,
    slot::Target,
    types::{Digest, Nonce},
    verify::Verified,
};

/// What the loader needs of the machine.
pub trait Platform {
    /// A partition.
    type Device: Device;
    /// A UKI in memory, the very bytes that were hashed.
    type Image;

    /// The `boot-state` partition of the disk that the loader was started from.
    fn boot_state(&mut self) -> Option<&mut Self::Device>;

    /// `boot-a`, `boot-b` or `boot-r` of that disk.
    fn slot(&mut self, target: Target) -> Option<&mut Self::Device>;

    /// Reads the UKI at `offset` of the slot into memory and hashes it, in one pass. `length` is the
    /// one that the verified manifest names.
    ///
    /// # Errors
    /// What went wrong, for a person.
    fn load_uki(
        &mut self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<(Self::Image, Digest), String>;

    /// Sixteen bytes that were never used before and are not all zero.
    fn nonce(&mut self) -> Nonce;

    /// One line for whoever watches the consoles.
    fn log(&mut self, line: fmt::Arguments<'_>);

    /// Seconds since 1970, if the clock can be read. For events only; nothing is decided by it.
    fn now(&mut self) -> Option<i64>;

    /// Whether Secure Boot is on ([`Answer::is_secure_boot`]): then floors are in firmware's variables, too.
    fn secure_boot(&mut self) -> bool;

    /// What firmware answers when it is asked for a floor.
    fn floor_variable(&mut self, variable: FloorVariable) -> Answer;

    /// Writes it, with [`ATTRIBUTES`](super::variable::ATTRIBUTES).
    ///
    /// # Errors
    /// What went wrong, for a person.
    fn write_floor(&mut self, variable: FloorVariable, write: Write) -> Result<(), String>;
}

/// Something verified, to be started now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<I> {
    /// The slot, or recovery.
    pub target: Target,
    /// Why it was its turn.
    pub why: Why,
    /// The bytes to start.
    pub image: I,
    /// Its manifest, its digest, its keys.
    pub verified: Verified,
    /// The nonce in the newest record on the disk; zero if there is no record.
    pub nonce: Nonce,
    /// Whether this start is in the record.
    pub recorded: bool,
    /// Whether a hardware timer may be armed for it.
    pub may_arm_timer: bool,
}
