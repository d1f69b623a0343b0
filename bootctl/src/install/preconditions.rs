//! What forbids an installation because of what is in the slots; and the list of everything that ends one before a byte
//! of a slot is written, in the order in which it is asked:
//!
//! | an installation ends because | code | where |
//! | --- | --- | --- |
//! | the machine was not started by Sternpost | `NotSternpost` | `Machine::read` |
//! | in recovery no slot is named, or elsewhere the one that runs | `Usage`, `Refused` | `commands::target_slot` |
//! | another installation runs | `Locked` | `boot::installing` |
//! | loader and agent disagree about what runs | `Refused` | `Machine::writable` |
//! | there is no disk, no such partition, no trust.json | `Failed`, `Verification` | `machine::disk`, `slot_check::trust` |
//! | the loader goes by another root of trust than the image, and no ESP has it any more | `Refused` | [`crate::boot::admission`] |
//! | that loader would not take it | `Verification` | [`super::bundle_front`] |
//! | the source cannot be reached or read, or is of no known kind | `Source`, `Usage` | [`crate::source`] |
//! | no copy of the record is valid | `Failed` | `Control::record` |
//! | the slot may not be emptied, by its state in the record | `Refused` | [`boot_core::transition::clear`] |
//! | it is the last one that starts | `Refused` | [`something_starts`] |
//! | the bundle is none, not signed, for another machine, below the floor or too far above it, expired; too large; cut short | `Verification`; `DoesNotFit`; `Source` | [`super::bundle_front`] |
//! | it was signed under an older keyring than what runs | `Verification` | [`keys_not_older`], [`keys_not_older_than_both`] |
//! | it runs already, in the other slot, and this one is good and holds another version | `Refused` | [`runs_not_already`] |
//! | it is in quarantine; the quarantine ring cannot be read | `Refused`; `Failed` | [`super::install`], `Control::quarantine_entry` |
//! | its verity leaves are not those of the root hash; there is no room for them on `state` | `Verification`; `Failed` | `BundleFront::read_leaves`, `super::leaves` |
//! | somebody does not let go of the boot state | `Locked` | `Control::lock` |
//! | the record cannot be written | `Failed` | `Control::prove_writable` |
//!
//! After that a chunk that is not what was signed ends it (`write`), and so does a disk that does not keep what is
//! written to it (`read_back`).

use boot_core::record::{Record, SlotEntry};
use boot_core::slot_header::read_slot;
use boot_core::trust::Trust;
use boot_core::verify::{verify_manifest, would_start};
use boot_core::{Device, KeyringSerial, Slot, Target};

use super::Options;
use super::bundle_front::BundleFront;
use crate::failure::{Failure, Result};

/// Something that starts has to be left while the slot is written. The running slot does; from
/// recovery, the slot beside the target has to verify, unless the target does not start either.
pub(super) fn something_starts<D: Device>(
    record: &Record,
    options: &Options<'_>,
    booted: Target,
    target: &mut D,
    beside: Option<&mut D>,
) -> Result<()> {
    let slot = options.slot;
    let other = slot.other();
    if booted == other.into() || !record.slot(slot).is_startable() {
        return Ok(());
    }
    let starts = record.slot(other).is_startable()
        && beside.is_some_and(|device| {
            would_start(device, other.into(), options.admission, record).is_ok()
        });
    if starts || would_start(target, slot.into(), options.admission, record).is_err() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "slot {slot} is the last one that starts: what is in slot {other} does not verify"
    ))
    .doing(format!("installing into slot {slot}"))
    .next(format!(
        "install into slot {other} first, with --slot {}",
        crate::machine::facts::target_name(other.into())
    )))
}

/// An installation that is run once more, after it was started and marked good, would empty the slot to fall back to.
pub(super) fn runs_not_already(
    record: &Record,
    booted: Target,
    slot: Slot,
    front: &BundleFront,
) -> Result<()> {
    let Some(running) = booted.slot() else {
        return Ok(());
    };
    let runs = |entry: &SlotEntry| entry.is_good() && entry.digest == front.digest;
    let kept = record.slot(slot);
    if !runs(record.slot(running)) || !kept.is_good() || runs(kept) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "version {} runs already, in slot {running}; nothing was written",
        front.manifest.version
    ))
    .next(format!(
        "version {} in slot {slot} is kept to go back to; `bootctl install --force` writes this one over it",
        kept.version
    )))
}

/// Keys that were taken out of service since must not sign what comes after: the bundle's keyring
/// may not be older than the one of the slot that is running.
pub(crate) fn keys_not_older<D: Device>(
    trust: &Trust,
    running: &mut D,
    serial: KeyringSerial,
) -> Result<()> {
    // It runs, so it verified; that it no longer does is for the root check and the loader.
    match keyring_serial(trust, running) {
        Some(known) => serial_not_older(serial, known),
        None => Ok(()),
    }
}

/// The same where recovery runs: not older than in every good slot whose manifest can still be verified.
pub(super) fn keys_not_older_than_both<D: Device>(
    trust: &Trust,
    record: &Record,
    slots: [(Slot, Option<&mut D>); 2],
    serial: KeyringSerial,
) -> Result<()> {
    let known = slots
        .into_iter()
        .filter(|(slot, _)| record.slot(*slot).is_good())
        .filter_map(|(_, device)| keyring_serial(trust, device?));
    match known.min() {
        Some(known) => serial_not_older(serial, known),
        None => Ok(()),
    }
}

fn keyring_serial<D: Device>(trust: &Trust, slot: &mut D) -> Option<KeyringSerial> {
    let parts = read_slot(slot).ok()?;
    let verified = verify_manifest(trust, &parts.envelope, &parts.keyring).ok()?;
    Some(verified.keyring.serial)
}

/// The same, where the serial of the system that runs, or last ran, is known.
pub(super) fn serial_not_older(serial: KeyringSerial, known: KeyringSerial) -> Result<()> {
    if serial >= known {
        return Ok(());
    }
    Err(Failure::verification(format!(
        "the bundle's keyring has serial {serial}, this machine's has {known}: its keys may have been taken out of service"
    ))
    .next("ask its publisher for a bundle under the newer keyring; nothing was changed"))
}
