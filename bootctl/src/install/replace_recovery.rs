//! Replacing recovery: like an installation, but there is one of it and the record does not speak of it. So while it is
//! written, both slots are good and verify: nothing is going to need it.
//!
//! ```text
//!  1  front of the bundle read and verified; both slots good, both verified      nothing written
//!  2  slot header zeroed, flushed: there is no recovery
//!  3  UKI written in place, each chunk verified before; flushed; read back
//!  4  manifest and keyring chain written, header last; the loader's verifier run over it
//!  5  one commit: recovery's floor rises to it, so that none older takes its place; cut before, by the next run
//! ```

use boot_core::event::EventKind;
use boot_core::hashed;
use boot_core::manifest::{CHUNK_SIZE, Chunk, Kind};
use boot_core::record::Record;
use boot_core::slot_header::{self, SlotHeader, UKI_OFFSET};
use boot_core::verify::would_start;
use boot_core::{Device, Digest, KeyringSerial, Slot, Target, Version};
use serde::Serialize;

use super::bundle_front::{BundleFront, Room, Wanted};
use super::preconditions::serial_not_older;
use super::unpack::{Unpacker, contradicts_itself, damaged, goes_on};
use super::{disk, uki_chunk};
use crate::boot::admission::Admission;
use crate::boot::control::Control;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::source::Source;

#[derive(Debug, Clone, Serialize)]
pub struct Replaced {
    pub version: Version,
    pub manifest: Digest,
    /// True if it was there already, complete.
    pub was_there: bool,
    /// Bytes of frames that were fetched.
    pub fetched: u64,
}

/// Replaces what is in `target`, the partition `boot-r`, by what `source` holds. `slots` are `boot-a` and `boot-b`.
///
/// # Errors
/// Whatever fails: before step 2 nothing has changed; after it there is no recovery until it is run again, and after step 4 there is the new one.
pub fn replace<D: Device>(
    control: &mut Control<D>,
    target: &mut D,
    slots: [&mut D; 2],
    source: &mut dyn Source,
    admission: &Admission,
    progress: &Progress,
) -> Result<Replaced> {
    let record = control.record()?;
    let known = not_needed(&record, slots, control.context().booted, admission)?;
    let wanted = Wanted {
        kind: Kind::Recovery,
        floor: admission.floor(Kind::Recovery, &record),
        room: Room {
            boot: target.size(),
            root: 0,
        },
        now: (control.context().now)(),
    };
    let front = BundleFront::read(source, admission, &wanted)?;
    serial_not_older(front.serial, known)?;
    let mut replaced = Replaced {
        version: front.manifest.version,
        manifest: front.digest,
        was_there: false,
        fetched: 0,
    };
    if would_start(target, Target::Recovery, admission, &record)
        .is_ok_and(|there| there.digest == front.digest)
    {
        replaced.was_there = true;
        let _lock = control.lock()?;
        control.raise_recovery_floor(front.contents().level)?;
        return Ok(replaced);
    }
    progress.note(&format!(
        "recovery of version {}, signed and meant for this machine, replaces the one that is there",
        front.manifest.version
    ));
    slot_header::clear_header(target).map_err(|e| disk(e).doing("clearing recovery's header"))?;
    let written = fill(&front, target, source, progress).and_then(|fetched| {
        finish(&front, target, admission, &record)?;
        Ok(fetched)
    });
    let _lock = control.lock()?;
    let (kind, text) = match &written {
        Ok(_) => (
            EventKind::RECOVERY_REPLACED,
            format!("version {} from {}", front.manifest.version, source.name()),
        ),
        Err(failure) => (
            EventKind::INSTALL_FAILED,
            format!("version {}: {}", front.manifest.version, failure.what),
        ),
    };
    control.event(kind, Some(Target::Recovery), front.digest, &text);
    replaced.fetched = written?;
    // Recovery is whole all the same; the next replacement makes good on it.
    if let Err(e) = control.raise_recovery_floor(front.contents().level) {
        eprintln!("bootctl: {e}");
    }
    Ok(replaced)
}

/// Nothing may need recovery while it is written. Gives the serial of the running system's keyring.
fn not_needed<D: Device>(
    record: &Record,
    slots: [&mut D; 2],
    booted: Target,
    admission: &Admission,
) -> Result<KeyringSerial> {
    let next = "recovery is replaced only while both slots are good: bring the other one up first; nothing was changed";
    if booted == Target::Recovery {
        return Err(Failure::refused("the recovery system is running").next(next));
    }
    let mut known = KeyringSerial::default();
    for (slot, device) in Slot::BOTH.into_iter().zip(slots) {
        let entry = record.slot(slot);
        if !entry.is_good() {
            let why = format!("slot {slot} is {}", entry.status());
            return Err(Failure::refused(why).next(next));
        }
        let verified = would_start(device, slot.into(), admission, record).map_err(|rejected| {
            Failure::refused(format!("slot {slot} does not verify: {rejected}")).next(next)
        })?;
        if booted == slot.into() {
            known = verified.keyring.serial;
        }
    }
    Ok(known)
}

/// Step 3; the bytes that were fetched.
fn fill<D: Device>(
    front: &BundleFront,
    target: &mut D,
    source: &mut dyn Source,
    progress: &Progress,
) -> Result<u64> {
    let uki = &front.uki;
    let mut unpacker = Unpacker::new()?;
    let mut buf = vec![0; CHUNK_SIZE as usize];
    let mut fetched = 0;
    source.expect_until(front.end());
    progress.begin("fetching", front.table.total());
    for (chunk, digest) in Chunk::all(uki.size).zip(&uki.chunks) {
        // What cannot be read is not there: writing over it is what mends a bad sector.
        let there = uki_chunk::read(target, chunk, &mut buf);
        if there.is_ok_and(|it| Digest::of(it) == *digest) {
            continue;
        }
        let bytes = &mut buf[..chunk.len];
        fetched += unpacker.fetch(front, source, progress, chunk.index, bytes)?;
        if Digest::of(bytes) != *digest {
            return Err(damaged(source, chunk.index));
        }
        uki_chunk::write(target, chunk, &mut buf).map_err(|e| disk(e).doing("writing the UKI"))?;
    }
    progress.end();
    target.flush().map_err(disk)?;
    if !source.ends_at(front.end())? {
        return Err(goes_on(source));
    }
    match hashed::digest(target, UKI_OFFSET, uki.size).map_err(disk)? {
        found if found == uki.digest => Ok(fetched),
        _ => Err(contradicts_itself()),
    }
}

/// Step 4.
fn finish<D: Device>(
    front: &BundleFront,
    target: &mut D,
    admission: &Admission,
    record: &Record,
) -> Result<()> {
    let header = SlotHeader::new(
        Target::Recovery,
        front.envelope.len(),
        front.keyring.len(),
        front.uki.size,
        front.digest,
    )
    .ok_or_else(|| Failure::verification("manifest and keyring chain do not fit before the UKI"))?;
    slot_header::write_parts(target, &header, &front.envelope, &front.keyring)
        .map_err(|e| disk(e).doing("writing the manifest"))?;
    slot_header::write_header(target, &header)
        .map_err(|e| disk(e).doing("writing the slot header"))?;
    would_start(target, Target::Recovery, admission, record).map_err(|rejected| {
        Failure::verification(rejected)
            .doing("reading recovery back as the loader will")
            .next("the disk does not keep what is written to it: replace it")
    })?;
    Ok(())
}
