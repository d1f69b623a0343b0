//! The boot state over any device: the commits, what a verdict changes, whether a slot would start, and whether its
//! root is what was signed.

pub mod control;
pub mod root_scan;
pub mod slot_check;
pub mod verdict;

use boot_core::Nonce;

use self::control::{Context, Control};
use crate::failure::Result;
use crate::machine::Machine;
use crate::os::clock;
use crate::os::device::BlockFile;

/// Opens this machine's boot state. Whoever opens it to write holds the lock.
pub fn open(machine: &Machine, write: bool) -> Result<Control<BlockFile>> {
    let device = machine.open("boot-state", write)?;
    let nonce = machine.handover.as_ref().map_or(Nonce::ZERO, |h| h.nonce);
    let context = Context {
        booted: machine.booted,
        nonce,
        now: clock::now,
    };
    Ok(Control::new(device, context))
}
