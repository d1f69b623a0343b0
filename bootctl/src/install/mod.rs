//! Writing a bundle into a slot: rule 4 of docs/formats/boot-state.md, in its order.
//!
//! ```text
//!  0  may this slot be written? everything that may refuse: preconditions          nothing written
//!  1  front of the bundle read and verified: sizes, floor, expiry; quarantine      nothing written (bundle_front)
//!  2  plan: which chunks the slot, or the other one, already has                  nothing written (chunk_plan)
//!  3  both copies of the record proved to be writable; slot header zeroed, flushed; one commit: the slot is empty
//!  4  UKI, root and verity tree written in place, each chunk verified before      (write)
//!  5  flushed; read back past the cache, every byte verified                      (read_back)
//!  6  manifest and keyring chain written, header last; the loader's verifier run over it
//!  7  one commit: the slot is staged
//! ```
//!
//! Killed at any point and run again, it goes on: what step 4 wrote is found by step 2. Everything
//! runs over [`Device`] and [`Source`]; [`into_slot`] opens what this machine has. Which slot it is where none is named
//! is decided in `commands::target_slot`.
//!
//! Who gives a chunk is not believed: the slot beside (`reference`) and the frames of a bundle (`unpack`, over a
//! [`Source`]) give bytes, and who uses them (`write`, [`replace_recovery`], `payload` for a loader) alone compares them
//! with the signed manifest, before anything is written. So another place where chunks are found needs no trust: it
//! stands beside `reference`, and what it gives wrongly is fetched from the bundle.

mod bundle_front;
mod chunk_plan;
pub mod into_slot;
mod leaves;
mod preconditions;
mod read_back;
mod reference;
pub mod repair;
pub mod replace_recovery;
mod uki_chunk;
mod unpack;
mod write;

use std::path::PathBuf;

use boot_core::event::EventKind;
use boot_core::manifest::Kind;
use boot_core::record::SlotStatus;
use boot_core::slot_header::{self, SlotHeader};
use boot_core::verify::would_start;
use boot_core::{Device, Digest, Slot, Target, Version, transition};
use serde::Serialize;

pub(crate) use self::bundle_front::{BundleFront, Room, Wanted};
use self::chunk_plan::ChunkPlan;
use self::leaves::Leaves;
pub(crate) use self::preconditions::keys_not_older;
use self::reference::Reference;
pub(crate) use self::unpack::payload;
use crate::boot::admission::Admission;
use crate::boot::control::{Control, refused};
use crate::boot::slot_check::SlotDevices;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::source::Source;

/// What to install by.
pub struct Options<'a> {
    /// What may be installed: what would start.
    pub admission: &'a Admission,
    pub slot: Slot,
    /// Release the bundle from quarantine.
    pub force: bool,
    /// Where a large image's leaves may be kept meanwhile.
    pub scratch: PathBuf,
    /// Manifests that are not installed, because they have been often enough.
    pub unwanted: &'a [Digest],
}

#[derive(Debug, Clone, Serialize)]
pub struct Installed {
    pub slot: Slot,
    pub version: Version,
    pub manifest: Digest,
    /// True if it was there already, complete.
    pub was_there: bool,
    /// Bytes of frames that were fetched.
    pub fetched: u64,
    /// Bytes of image that the machine already had.
    pub reused: u64,
    /// Bytes of image altogether.
    pub size: u64,
}

/// Installs what `source` holds into a slot, and stages it.
///
/// # Errors
/// Whatever fails: before step 3 nothing has changed; after it the slot is empty for the loader, and
/// running it again goes on.
pub fn install<D: Device>(
    control: &mut Control<D>,
    target: &mut SlotDevices<D>,
    mut other: Option<&mut SlotDevices<D>>,
    source: &mut dyn Source,
    options: &Options<'_>,
    progress: &Progress,
) -> Result<Installed> {
    let slot = options.slot;
    let record = control.record()?;
    let booted = control.context().booted;
    // Refused early, before anything is fetched.
    transition::clear(&record, slot, booted)
        .map_err(|because| refused(because).doing(format!("installing into slot {slot}")))?;
    let beside = other.as_deref_mut().map(|parts| &mut parts.boot);
    preconditions::something_starts(&record, options, booted, &mut target.boot, beside)?;

    let wanted = Wanted {
        kind: Kind::System,
        floor: options.admission.floor(Kind::System, &record),
        room: Room {
            boot: target.boot.size(),
            root: target.root.size(),
        },
        now: (control.context().now)(),
    };
    let front = BundleFront::read(source, options.admission, &wanted)?;
    let version = front.manifest.version;
    let beside = other.as_deref_mut().map(|parts| &mut parts.boot);
    match (booted, beside) {
        (Target::Recovery, beside) => {
            let slots = [(slot, Some(&mut target.boot)), (slot.other(), beside)];
            preconditions::keys_not_older_than_both(
                options.admission.trust(),
                &record,
                slots,
                front.serial,
            )?;
        }
        (_, Some(running)) => {
            preconditions::keys_not_older(options.admission.trust(), running, front.serial)?
        }
        (_, None) => {}
    }
    if !options.force {
        preconditions::runs_not_already(&record, booted, slot, &front)?;
    }
    if let Some(entry) = control.quarantine_entry(&front.digest)?
        && !options.force
    {
        return Err(Failure::refused(format!(
            "version {version} is in quarantine: {}",
            entry.reason
        ))
        .next("install another version; `bootctl install --force` takes it out of quarantine"));
    }
    if options.unwanted.contains(&front.digest) {
        return Err(Failure::refused(format!(
            "version {version} was installed by recovery more than once, and no start of it came to a verdict"
        ))
        .next("put another version at that address, or start this one again"));
    }
    let size = front.uki.size + front.manifest.root.as_ref().map_or(0, |r| r.data_size);
    let mut leaves = Leaves::new(front.header.leaves_length, &options.scratch);
    let upper = front.read_leaves(source, &mut leaves)?.unwrap_or_default();
    progress.note(&format!(
        "version {version}, signed and meant for this machine, goes into slot {slot}"
    ));

    let salt = front.manifest.root.as_ref().map(|r| &r.salt);
    let mut reference = other.and_then(|parts| Reference::open(parts, salt));
    let chunks = chunk_plan::plan(&front, &leaves, target, reference.as_ref())?;
    let entry = record.slot(slot);
    let staged = entry.status() == SlotStatus::Staged && entry.digest == front.digest;
    if staged && chunks.is_complete() {
        let intact = read_back::all(&front, &leaves, &upper, target, progress).is_ok()
            && would_start(&mut target.boot, slot.into(), options.admission, &record).is_ok();
        if intact {
            return Ok(Installed {
                slot,
                version,
                manifest: front.digest,
                was_there: true,
                fetched: 0,
                reused: size,
                size,
            });
        }
    }

    clear(control, target, slot, entry.contents().is_some())?;
    let written = fill(
        &front,
        &leaves,
        &upper,
        target,
        reference.as_mut(),
        source,
        chunks,
        progress,
    );
    let fetched = match written {
        Ok(fetched) => fetched,
        Err(failure) => {
            let _lock = control.lock()?;
            control.event(
                EventKind::INSTALL_FAILED,
                Some(slot.into()),
                front.digest,
                &format!("version {version}: {}", failure.what),
            );
            return Err(failure);
        }
    };
    finish(control, target, &front, options, source.name())?;
    Ok(Installed {
        slot,
        version,
        manifest: front.digest,
        was_there: false,
        fetched: fetched.bytes,
        reused: size.saturating_sub(fetched.image),
        size,
    })
}

/// Step 3: from here on the slot holds nothing.
fn clear<D: Device>(
    control: &mut Control<D>,
    target: &mut SlotDevices<D>,
    slot: Slot,
    held_something: bool,
) -> Result<()> {
    let booted = control.context().booted;
    let _lock = control.lock()?;
    // Asked again: the record may have changed since the installation began.
    let record = control.record()?;
    transition::clear(&record, slot, booted)
        .map_err(|because| refused(because).doing(format!("emptying slot {slot}")))?;
    let before = record.slot(slot).digest;
    // A slot whose emptying could not be recorded would be lost for nothing.
    control.prove_writable(&format!("emptying slot {slot}"))?;
    slot_header::clear_header(&mut target.boot)
        .map_err(|e| disk(e).doing(format!("clearing the header of slot {slot}")))?;
    control.change(&format!("emptying slot {slot}"), |r| {
        transition::clear(r, slot, booted)
    })?;
    if held_something {
        control.event(
            EventKind::CLEARED,
            Some(slot.into()),
            before,
            "for an installation",
        );
    }
    Ok(())
}

/// What was fetched: bytes of frames, and of the image that they became.
#[derive(Debug, Clone, Copy, Default)]
struct Fetched {
    bytes: u64,
    image: u64,
}

/// Steps 4 and 5.
#[expect(
    clippy::too_many_arguments,
    reason = "all of one installation, passed through once"
)]
fn fill<D: Device>(
    front: &BundleFront,
    leaves: &Leaves,
    upper: &[u8],
    target: &mut SlotDevices<D>,
    reference: Option<&mut Reference<'_, D>>,
    source: &mut dyn Source,
    chunks: ChunkPlan,
    progress: &Progress,
) -> Result<Fetched> {
    let mut writer = write::Writer::new(front, leaves, target, reference, source, progress)?;
    let fetched = writer.all(&chunks)?;
    drop(writer);
    write::tree(front, leaves, upper, target)?;
    target.boot.flush().map_err(disk)?;
    target.root.flush().map_err(disk)?;
    if !source.ends_at(front.end())? {
        return Err(unpack::goes_on(source));
    }
    read_back::all(front, leaves, upper, target, progress)?;
    Ok(fetched)
}

/// Steps 6 and 7.
fn finish<D: Device>(
    control: &mut Control<D>,
    target: &mut SlotDevices<D>,
    front: &BundleFront,
    options: &Options<'_>,
    from: &str,
) -> Result<()> {
    let slot = options.slot;
    let _lock = control.lock()?;
    let header = SlotHeader::new(
        slot.into(),
        front.envelope.len(),
        front.keyring.len(),
        front.uki.size,
        front.digest,
    )
    .ok_or_else(|| Failure::verification("manifest and keyring chain do not fit before the UKI"))?;
    slot_header::write_parts(&mut target.boot, &header, &front.envelope, &front.keyring)
        .map_err(|e| disk(e).doing("writing the manifest"))?;
    slot_header::write_header(&mut target.boot, &header)
        .map_err(|e| disk(e).doing("writing the slot header"))?;
    let booted = control.context().booted;
    let contents = front.contents();
    let staged = transition::stage(&control.record()?, slot, contents, booted).map_err(refused)?;
    would_start(&mut target.boot, slot.into(), options.admission, &staged).map_err(|rejected| {
        Failure::verification(rejected)
            .doing("reading the slot back as the loader will")
            .next("the disk does not keep what is written to it: replace it")
    })?;
    control.release(&front.digest)?;
    control.change(&format!("staging slot {slot}"), |r| {
        transition::stage(r, slot, contents, booted)
    })?;
    let text = format!("version {} from {from}", front.manifest.version);
    control.event(EventKind::STAGED, Some(slot.into()), front.digest, &text);
    Ok(())
}

/// A device that refused.
fn disk(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error).next(
        "look at the disk (journalctl -k); the running slot is untouched, and the same command goes on where it stopped",
    )
}
