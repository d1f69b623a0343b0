//! Whether a slot would be started, as the loader sees it: record, header, signatures, UKI.

use block_file::{Access, BlockFile};
use boot_core::record::Record;
use boot_core::trust::Trust;
use boot_core::verify::{self, Verify};
use boot_core::{Device, Slot};

use crate::boot::admission::Admission;
use crate::boot::root_scan;
use crate::failure::{Doing, Failure, Result};
use crate::machine::Machine;

/// The two partitions of a slot.
pub struct SlotDevices<D> {
    /// `boot-x`.
    pub boot: D,
    /// `root-x`.
    pub root: D,
}

impl SlotDevices<BlockFile> {
    /// Opens those of this machine's `slot`.
    pub fn open(machine: &Machine, slot: Slot, access: Access) -> Result<Self> {
        Ok(Self {
            boot: machine.open(slot.label_boot(), access)?,
            root: machine.open(slot.label_root(), access)?,
        })
    }
}

/// The image's root of trust.
pub fn trust(machine: &Machine) -> Result<Trust> {
    let path = machine.paths().image("trust.json");
    let bytes = std::fs::read(&path).doing(|| format!("reading {}", path.display()))?;
    Trust::from_json(&bytes)
        .map_err(|e| Failure::verification(e).doing(format!("reading {}", path.display())))
}

/// Reads every byte of a slot: what the loader verifies, and the whole root.
///
/// # Errors
/// [`crate::failure::Code::Verification`], if one is not what was signed or cannot be read.
pub fn whole<D: Device>(
    parts: &mut SlotDevices<D>,
    slot: Slot,
    verifier: &impl Verify,
    record: &Record,
) -> Result<()> {
    let verified = root_scan::damage_that_stays(|| {
        verify::would_start(&mut parts.boot, slot.into(), verifier, record)
            .map_err(Failure::verification)
    })?;
    match &verified.manifest.root {
        Some(root) => root_scan::check(&mut parts.root, root),
        None => Ok(()),
    }
}

/// Fails, with why, unless the loader may start `slot`, which is in `device`, by its counters and would by its contents.
pub fn may_start<D: Device>(
    device: &mut D,
    slot: Slot,
    verifier: &impl Verify,
    record: &Record,
) -> Result<()> {
    let entry = record.slot(slot);
    if !entry.is_startable() {
        return Err(Failure::refused(format!(
            "slot {slot} is {}",
            entry.status()
        )));
    }
    verify::would_start(device, slot.into(), verifier, record)
        .map(|_| ())
        .map_err(|rejected| Failure::verification(rejected).doing(format!("slot {slot}")))
}

/// The same, of this machine's `slot`.
pub fn startable(machine: &Machine, record: &Record, slot: Slot) -> Result<()> {
    let mut device = machine.open(slot.label_boot(), Access::Read)?;
    may_start(&mut device, slot, &Admission::of(machine)?, record)
}
