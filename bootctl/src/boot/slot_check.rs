//! Whether a slot would be started, as the loader sees it: record, header, signatures, UKI.

use boot_core::record::Record;
use boot_core::slot_header::{ReadSlotError, SlotParts, read_slot};
use boot_core::trust::Trust;
use boot_core::verify::{Expect, Rejected, Verified, verify_slot};
use boot_core::{Device, Digest, Slot, Target};
use sha2::{Digest as _, Sha256};

use crate::boot::root_scan;
use crate::failure::{Doing, Failure, Result};
use crate::machine::Machine;
use crate::os::device::BlockFile;

/// What is hashed at a time.
const STEP: u64 = 1 << 20;

/// The two partitions of a slot.
pub struct Parts<D> {
    /// `boot-x`.
    pub boot: D,
    /// `root-x`.
    pub root: D,
}

impl Parts<BlockFile> {
    /// Opens those of this machine's `slot`.
    pub fn open(machine: &Machine, slot: Slot, write: bool) -> Result<Self> {
        Ok(Self {
            boot: machine.open(slot.label_boot(), write)?,
            root: machine.open(slot.label_root(), write)?,
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

/// Verifies what is in `target` with the loader's own verifier, the UKI's digest included.
pub fn verify<D: Device>(
    device: &mut D,
    target: Target,
    trust: &Trust,
    record: &Record,
) -> Result<Verified, Rejected> {
    let SlotParts {
        header,
        envelope,
        keyring,
    } = read_slot(device).map_err(|e| match e {
        ReadSlotError::Header(e) => Rejected::Header(e),
        ReadSlotError::Device(e) => Rejected::Unreadable(e.to_string()),
    })?;
    let floor = match target {
        Target::Recovery => record.recovery_floor,
        _ => record.floor,
    };
    let expect = Expect {
        target,
        floor,
        uki: None,
    };
    let verified = verify_slot(trust, &header, &envelope, &keyring, &expect)?;
    if let Some(slot) = target.slot()
        && record.slot(slot).digest != verified.digest
    {
        return Err(Rejected::NotRecorded {
            found: verified.digest,
        });
    }
    let uki = digest_at(device, header.uki_offset, header.uki_length)
        .map_err(|e| Rejected::Unreadable(e.to_string()))?;
    verified.check_uki(&uki)?;
    Ok(verified)
}

/// SHA-256 of `length` bytes at `offset`, which is a multiple of the block size.
pub fn digest_at<D: Device>(device: &mut D, offset: u64, length: u64) -> Result<Digest, D::Error> {
    let mut hasher = Sha256::new();
    let block = u64::from(device.block_size());
    let mut buf = vec![0; STEP as usize];
    let mut done = 0;
    while done < length {
        let part = STEP.min(length - done);
        let read = part.next_multiple_of(block) as usize;
        device.read_at(offset + done, &mut buf[..read])?;
        hasher.update(&buf[..part as usize]);
        done += part;
    }
    Ok(Digest(hasher.finalize().into()))
}

/// Reads every byte of a slot: what the loader verifies, and the whole root.
///
/// # Errors
/// [`crate::failure::Code::Verification`], if one is not what was signed or cannot be read.
pub fn whole<D: Device>(
    parts: &mut Parts<D>,
    slot: Slot,
    trust: &Trust,
    record: &Record,
) -> Result<()> {
    let verified =
        verify(&mut parts.boot, slot.into(), trust, record).map_err(Failure::verification)?;
    match &verified.manifest.root {
        Some(root) => root_scan::check(&mut parts.root, root),
        None => Ok(()),
    }
}

/// Fails, with why, unless the loader would start `slot`, which is in `device`.
pub fn would_start<D: Device>(
    device: &mut D,
    slot: Slot,
    trust: &Trust,
    record: &Record,
) -> Result<()> {
    let entry = record.slot(slot);
    if !entry.is_startable() {
        return Err(Failure::refused(format!(
            "slot {slot} is {}",
            entry.status()
        )));
    }
    verify(device, slot.into(), trust, record)
        .map(|_| ())
        .map_err(|rejected| Failure::verification(rejected).doing(format!("slot {slot}")))
}

/// The same, of this machine's `slot`.
pub fn startable(machine: &Machine, record: &Record, slot: Slot) -> Result<()> {
    let mut device = machine.open(slot.label_boot(), false)?;
    would_start(&mut device, slot, &trust(machine)?, record)
}

#[cfg(test)]
mod tests {
    use boot_core::test_support::MemoryDevice;

    use super::*;

    #[test]
    fn a_digest_is_of_the_bytes_that_were_asked_for() {
        let size = 3 * STEP;
        let mut device = MemoryDevice::new(size, 512);
        let bytes: Vec<u8> = (0..size).map(|at| (at / 7) as u8).collect();
        device.write_at(0, &bytes).unwrap();
        for length in [1, 512, STEP, STEP + 700, 2 * STEP - 512] {
            let wanted = &bytes[512..][..length as usize];
            let found = digest_at(&mut device, 512, length).unwrap();
            assert_eq!(found, Digest::of(wanted), "{length} bytes");
        }
    }
}
