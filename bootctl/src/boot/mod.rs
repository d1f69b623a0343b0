//! The boot state over any device: the commits, what a verdict changes, whether a slot would start, and whether its
//! root is what was signed.

pub mod admission;
pub mod control;
pub mod root_scan;
pub mod slot_check;
pub mod verdict;

use std::ops::{Deref, DerefMut};

use block_file::{Access, BlockFile};
use boot_core::Nonce;

use self::control::{Context, Control};
use crate::failure::Result;
use crate::machine::Machine;
use crate::os::clock;
use crate::os::lock::Lock;

/// This machine's boot state to look at: the device refuses whatever is written.
pub fn view(machine: &Machine) -> Result<Control<BlockFile>> {
    open(machine, Access::Read)
}

/// This machine's boot state for a change of some moments, under its lock.
pub struct Locked {
    control: Control<BlockFile>,
    _lock: Lock,
}

impl Locked {
    /// Opens it for `what`, as soon as whoever holds the lock has let go.
    ///
    /// # Errors
    /// That takes too long; or nothing may be written on this machine.
    pub fn wait_for(machine: &Machine, what: &str) -> Result<Self> {
        let lock = Lock::wait_for(&machine.paths().lock(), what)?;
        Self::by(machine, lock)
    }

    /// Opens it by the lock of the boot state, which the caller has taken.
    ///
    /// # Errors
    /// Nothing may be written on this machine.
    pub fn by(machine: &Machine, lock: Lock) -> Result<Self> {
        machine.writable()?;
        let control = open(machine, Access::Shared)?;
        Ok(Self {
            control,
            _lock: lock,
        })
    }
}

impl Deref for Locked {
    type Target = Control<BlockFile>;

    fn deref(&self) -> &Self::Target {
        &self.control
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.control
    }
}

/// For what writes slots, recovery or an ESP: the lock of installations, and the boot state, which takes its own lock for
/// each change ([`Control::lock`]).
///
/// # Errors
/// Somebody installs; or nothing may be written on this machine.
pub fn installing(machine: &Machine, what: &str) -> Result<(Lock, Control<BlockFile>)> {
    let lock = Lock::take(&machine.paths().install_lock(), what)?;
    machine.writable()?;
    let control = open(machine, Access::Shared)?.locking(machine.paths().lock(), what);
    Ok((lock, control))
}

fn open(machine: &Machine, access: Access) -> Result<Control<BlockFile>> {
    let device = machine.open("boot-state", access)?;
    let nonce = machine.handover.as_ref().map_or(Nonce::ZERO, |h| h.nonce);
    let context = Context {
        booted: machine.booted,
        nonce,
        now: clock::now,
    };
    Ok(Control::new(device, context))
}
