//! What the host reads and changes of a disk's slots and boot-state while the machine is off, by `boot-core`'s codecs.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use boot_core::dsse::Envelope;
use boot_core::event::Event;
use boot_core::record::Record;
use boot_core::slot_header::{self, SlotHeader, UKI_OFFSET};
use boot_core::store::{BootState, COPIES, CopyHealth};
use boot_core::{Digest, PublicKey, Slot, Target, manifest, transition};
use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;

use crate::disk::{Disk, Partition};

/// The newest boot-state record.
///
/// # Errors
/// No copy is valid.
pub fn record(disk: &Disk) -> Result<Record> {
    state(disk)?
        .load()
        .record
        .ok_or_else(|| anyhow!("{} has no valid boot-state record", disk.path().display()))
}

/// Commits what `change` makes of the newest record.
///
/// # Errors
/// There is none, `change` refuses, or it cannot be written.
pub fn change_record(disk: &Disk, change: impl FnOnce(&Record) -> Result<Record>) -> Result<()> {
    let next = change(&record(disk)?)?;
    state(disk)?
        .commit(&next)
        .map_err(|error| anyhow!("{}: {error}", disk.path().display()))?;
    Ok(())
}

/// Whether both copies of the record are valid.
///
/// # Errors
/// There is no such partition.
pub fn are_both_copies_valid(disk: &Disk) -> Result<bool> {
    let copies = state(disk)?.load().copies;
    let is_valid = |copy: &CopyHealth| matches!(copy, CopyHealth::Valid { .. });
    Ok(copies.iter().all(is_valid))
}

/// Zeroes the copy of the record that counts.
///
/// # Errors
/// No copy is valid, or it cannot be written.
pub fn destroy_newest_copy(disk: &Disk) -> Result<()> {
    let newest = state(disk)?.load().newest;
    let copy = newest.and_then(|newest| COPIES.get(newest));
    disk.zero("boot-state", *copy.context("no valid record")?, 512)
}

/// The event ring, oldest first.
///
/// # Errors
/// It cannot be read.
pub fn events(disk: &Disk) -> Result<Vec<Event>> {
    state(disk)?
        .events()
        .map_err(|error| anyhow!("{}: {error}", disk.path().display()))
}

fn state(disk: &Disk) -> Result<BootState<Partition>> {
    Ok(BootState::new(disk.partition("boot-state")?))
}

/// Puts the image of slot A into slot B as well. A is marked good. B comes first and is good (`good`) or on trial.
///
/// # Errors
/// The disk is not a new one.
pub fn twin(disk: &Disk, good: bool) -> Result<()> {
    let parts = read(disk, Target::A)?;
    let used = UKI_OFFSET + parts.header.uki_length;
    disk.copy_partition("boot-a", "boot-b", used)?;
    let (_, root) = disk.bounds("root-a")?;
    disk.copy_partition("root-a", "root-b", root)?;
    let mut boot_b = disk.partition("boot-b")?;
    write_header(
        &mut boot_b,
        &SlotHeader {
            slot: Target::B,
            ..parts.header
        },
    )?;
    change_record(disk, |record| {
        let contents = record
            .a
            .contents()
            .ok_or_else(|| anyhow!("slot A is empty"))?;
        let mut next = transition::mark_good(record, Slot::A, &contents.digest, Target::A)?;
        next = transition::stage(&next, Slot::B, contents, Target::A)?;
        next = transition::activate(&next, Slot::B, Target::A)?;
        if good {
            next = transition::mark_good(&next, Slot::B, &contents.digest, Target::B)?;
        }
        Ok(next)
    })
}

/// Flips a bit in the middle of a slot's UKI.
///
/// # Errors
/// There is no slot header.
pub fn damage_uki(disk: &Disk, target: Target) -> Result<()> {
    let uki = uki(disk, target)?;
    disk.flip_bit(target.label_boot(), (uki.start + uki.end) / 2)
}

/// Where in its partition a slot's UKI is, in bytes.
///
/// # Errors
/// There is no slot header.
pub fn uki(disk: &Disk, target: Target) -> Result<Range<u64>> {
    let header = read(disk, target)?.header;
    Ok(header.uki_offset..header.uki_offset + header.uki_length)
}

/// Writes the header of `found` into `target`'s partition, for which it is not.
///
/// # Errors
/// There is no slot header.
pub fn misplace_header(disk: &Disk, target: Target, found: Target) -> Result<()> {
    let header = read(disk, target)?.header;
    write_header(
        &mut disk.partition(target.label_boot())?,
        &SlotHeader {
            slot: found,
            ..header
        },
    )
}

/// Replaces a slot's manifest by what `edit` makes of it, signed with the signing key in `keys`. The slot header and the
/// record follow, so that nothing but the manifest is wrong.
///
/// # Errors
/// There is no slot header, or no key.
pub fn sign_again(
    disk: &Disk,
    slot: Slot,
    keys: &Path,
    edit: impl FnOnce(&mut Value),
) -> Result<()> {
    let target = Target::from(slot);
    let parts = read(disk, target)?;
    let envelope = Envelope::parse(&parts.envelope)?;
    let mut payload: Value = serde_json::from_slice(&envelope.payload)?;
    edit(&mut payload);
    let payload = if payload == serde_json::from_slice::<Value>(&envelope.payload)? {
        envelope.payload
    } else {
        serde_json::to_vec(&payload)?
    };
    let digest = Digest::of(&payload);
    let mut signed = Envelope::new(manifest::PAYLOAD_TYPE, payload);
    let key = signing_key(&keys.join("signing.key"))?;
    let public = PublicKey::Ed25519(key.verifying_key().to_bytes());
    signed.sign(&public, |message| {
        Ok::<_, anyhow::Error>(key.sign(message).to_bytes())
    })?;
    let json = signed.to_json();
    let header = SlotHeader::new(
        target,
        json.len(),
        parts.keyring.len(),
        parts.header.uki_length,
        digest,
    )
    .context("the manifest does not fit into the slot")?;
    let mut device = disk.partition(target.label_boot())?;
    slot_header::write_parts(&mut device, &header, &json, &parts.keyring)
        .map_err(|error| anyhow!("{error}"))?;
    write_header(&mut device, &header)?;
    change_record(disk, |record| {
        let mut next = record.clone();
        next.slot_mut(slot).digest = digest;
        Ok(next)
    })
}

fn signing_key(path: &Path) -> Result<SigningKey> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match SigningKey::from_pkcs8_pem(text.trim_end()) {
        Ok(key) => Ok(key),
        Err(_) => bail!("{} is no ed25519 key", path.display()),
    }
}

fn read(disk: &Disk, target: Target) -> Result<slot_header::SlotParts> {
    slot_header::read_slot(&mut disk.partition(target.label_boot())?)
        .map_err(|error| anyhow!("{target} of {}: {error}", disk.path().display()))
}

fn write_header(device: &mut Partition, header: &SlotHeader) -> Result<()> {
    slot_header::write_header(device, header).map_err(|error| anyhow!("{error}"))
}
