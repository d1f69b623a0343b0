//! Where each region lies on a disk, and what is done to it.

use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use boot_core::event::{Event, EventKind, Stage};
use boot_core::gpt;
use boot_core::layout::Label;
use boot_core::quarantine::QuarantineEntry;
use boot_core::record::Record;
use boot_core::slot_header::{SlotHeader, read_slot};
use boot_core::store::{BootState, COPIES, EVENT_RING, QUARANTINE_RING, STRIDE};
use boot_core::types::NUMBERS_END;
use boot_core::{Device as _, Digest, Slot, Target};

use super::appliance::Appliance;
use super::table::{Damage, Piece, Region, Role};
use crate::disk::{Contents, Disk, Part};
use crate::random::Random;

/// Bytes of an ESP, or of `state`'s journal, that stand for all of it.
const SOME: u64 = 64 << 10;

/// Byte ranges of the disk, in order.
type Ranges = Vec<Range<u64>>;

impl Appliance {
    /// Where a region lies.
    ///
    /// # Errors
    /// If the disk does not have it.
    #[expect(clippy::single_range_in_vec_init, reason = "ranges are what is meant")]
    pub(super) fn ranges(&self, region: Region) -> Result<Ranges> {
        let sector = u64::from(self.contents.sector);
        let entries = (128 * 128_u64).div_ceil(sector) * sector;
        let primary = 2 * sector..2 * sector + entries;
        let backup = self.size - sector - entries..self.size - sector;
        let within = |label, offset: u64, length: u64| {
            let (start, _) = self.place(label)?;
            anyhow::Ok(start + offset..start + offset + length)
        };
        let copy = |newest: bool| {
            let (start, size) = self.place(Label::BootState)?;
            let disk = Disk::new(self.contents.clone());
            let loaded = BootState::new(disk.window(start, size)).load();
            let index = loaded.newest.context("no valid copy of the record")?;
            let index = if newest { index } else { 1 - index };
            within(Label::BootState, COPIES[index], 512)
        };
        Ok(match region {
            Region::MbrCode => vec![0..440],
            Region::MbrEntry => vec![446..447, 450..451, 454..458, 510..512],
            Region::PrimaryHeader => vec![sector..sector + 92],
            Region::PrimaryEntries => vec![primary],
            Region::BackupEntries => vec![backup],
            Region::BackupHeader => vec![self.size - sector..self.size - sector + 92],
            Region::BootStateEntry
            | Region::RecordNumber
            | Region::RecordNumbers
            | Region::RingNumbers => bail!("no range of bytes is meant"),
            Region::EspA => vec![within(Label::EspA, 0, SOME)?],
            Region::EspB => vec![within(Label::EspB, 0, SOME)?],
            Region::RecordNewest => vec![copy(true)?],
            Region::RecordOther => vec![copy(false)?],
            Region::PrimaryTable | Region::BackupTable | Region::RecordBoth => {
                let parts = region.parts().into_iter().map(|part| self.ranges(part));
                parts.collect::<Result<Vec<_>>>()?.concat()
            }
            Region::EventRing => vec![within(Label::BootState, EVENT_RING, 256 * STRIDE)?],
            Region::QuarantineRing => {
                vec![within(Label::BootState, QUARANTINE_RING, 16 * STRIDE)?]
            }
            Region::Slot(role, piece) => self.pieces(self.slot(role).into(), piece)?,
            Region::Recovery(piece) => self.pieces(Target::Recovery, piece)?,
            Region::StateSuperblock => vec![within(Label::State, 1024, 1024)?],
            Region::StateJournal => vec![within(Label::State, 256 << 10, SOME)?],
        })
    }

    pub(super) fn slot(&self, role: Role) -> Slot {
        match role {
            Role::First => self.first,
            Role::Other => self.first.other(),
        }
    }

    /// The parts of a slot; of one that is empty, where the other one's would lie.
    fn pieces(&self, target: Target, piece: Piece) -> Result<Ranges> {
        let here = self.layout(target)?;
        let twin = target.slot().map(|slot| self.layout(slot.other().into()));
        let twin = twin.transpose()?.flatten();
        let it = here.or(twin).context("neither slot has a header")?;
        let boot = label(target.label_boot())?;
        let (boot, boot_size) = self.place(boot)?;
        let part = |offset: u64, length: u64| boot + offset..boot + offset + length;
        let envelope = u64::from(it.header.envelope_offset);
        let signed = &it.payload;
        let root = |from: u64, to: u64| {
            let slot = target.slot().context("recovery has no root")?;
            let (start, _) = self.place(label(slot.label_root())?)?;
            anyhow::Ok(start + from..start + to)
        };
        Ok(match piece {
            Piece::Header => vec![part(0, 512)],
            Piece::Manifest => vec![part(envelope + signed.start, signed.end - signed.start)],
            Piece::Envelope => {
                let end = it.header.envelope_length.into();
                let around = [0..signed.start, signed.end..end];
                let around = around.map(|it| envelope + it.start..envelope + it.end);
                self.without_hints(around.map(|it| part(it.start, it.end - it.start)))
            }
            Piece::Keyring => {
                let length = it.header.keyring_length.into();
                self.without_hints([part(it.header.keyring_offset.into(), length)])
            }
            Piece::Uki => vec![part(it.header.uki_offset, it.header.uki_length)],
            Piece::Root => vec![root(0, it.data_size)?],
            Piece::Tree => vec![root(it.data_size, it.root_size)?],
            Piece::Whole => vec![part(0, boot_size), root(0, it.root_size)?],
        })
    }

    /// The ranges without the names of key ids. Those are hints: an envelope that gives none is as good.
    fn without_hints(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Ranges {
        const HINT: &[u8] = b"keyid";
        let mut left = vec![];
        for range in ranges {
            let bytes = read(&self.contents, std::slice::from_ref(&range));
            let mut from = range.start;
            for (at, _) in (range.start..)
                .zip(bytes.windows(HINT.len()))
                .filter(|(_, window)| *window == HINT)
            {
                left.push(from..at);
                from = at + HINT.len() as u64;
            }
            left.push(from..range.end);
        }
        left
    }

    fn layout(&self, target: Target) -> Result<Option<SlotLayout>> {
        let (start, size) = self.place(label(target.label_boot())?)?;
        let disk = Disk::new(self.contents.clone());
        let Ok(parts) = read_slot(&mut disk.window(start, size)) else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&parts.envelope);
        let key = "\"payload\":\"";
        let from = text.find(key).context("an envelope without payload")? + key.len();
        let length = text[from..].find('"').context("a payload without end")?;
        let (manifest, _) = parts.manifest_unverified()?;
        Ok(Some(SlotLayout {
            header: parts.header,
            payload: from as u64..(from + length) as u64,
            data_size: manifest.root.as_ref().map_or(0, |root| root.data_size),
            root_size: manifest.root.as_ref().map_or(0, |root| root.size),
        }))
    }

    /// The region that this one could be taken for.
    fn twin(&self, region: Region) -> Option<Region> {
        Some(match region {
            Region::PrimaryHeader => Region::BackupHeader,
            Region::BackupHeader => Region::PrimaryHeader,
            Region::PrimaryEntries => Region::BackupEntries,
            Region::BackupEntries => Region::PrimaryEntries,
            Region::EspA => Region::EspB,
            Region::EspB => Region::EspA,
            Region::RecordNewest => Region::RecordOther,
            Region::RecordOther => Region::RecordNewest,
            Region::Slot(role, piece) => Region::Slot(role.other(), piece),
            // The recovery system in a slot's place, and a slot's in its.
            Region::Recovery(piece) => Region::Slot(Role::First, piece),
            _ => return None,
        })
    }

    /// The disk with `damage` done to `region`; none if that changes nothing.
    ///
    /// # Errors
    /// If the disk has no such region.
    pub(super) fn damaged(
        &self,
        region: Region,
        damage: Damage,
        random: &mut Random,
    ) -> Result<Option<Contents>> {
        match region {
            Region::BootStateEntry => return self.other_entry(damage),
            Region::RecordNumber | Region::RecordNumbers | Region::RingNumbers => {
                return self.wrong_numbers(region, damage, random);
            }
            _ => {}
        }
        let mut contents = self.contents.clone();
        let mut changed = false;
        for part in region.parts() {
            changed |= self.damage(part, damage, random, &mut contents)?;
        }
        Ok(changed.then_some(contents))
    }

    /// The disk with another entry of `boot-state`, or none, in tables that are valid.
    fn other_entry(&self, damage: Damage) -> Result<Option<Contents>> {
        let disk = Disk::new(self.contents.clone());
        let mut whole = disk.window(0, self.size);
        let table = gpt::read(&mut whole)?;
        let mut partitions = table.partitions;
        let name = Label::BootState.label();
        match damage {
            Damage::Zeros => partitions.retain(|it| it.label != name),
            Damage::Misplaced => {
                let twin = partitions.iter_mut().find(|it| it.label == "esp-b");
                twin.context("there is no second ESP")?.label = name.into();
            }
            _ => return Ok(None),
        }
        let steps = gpt::create(table.disk_guid, table.block_size, self.size, &partitions)?;
        gpt::apply(&mut whole, &steps)?;
        Ok(Some(disk.contents()))
    }

    /// The disk with numbers in its record or its rings that nobody counts up to, under checksums that are right.
    fn wrong_numbers(
        &self,
        region: Region,
        damage: Damage,
        random: &mut Random,
    ) -> Result<Option<Contents>> {
        if damage != Damage::Random {
            return Ok(None);
        }
        let wrong = [NUMBERS_END, (1 << 63) - 1, u64::MAX][random.below(3)];
        let (start, size) = self.place(Label::BootState)?;
        let disk = Disk::new(self.contents.clone());
        let mut device = disk.window(start, size);
        let newest = BootState::new(&mut device).load().newest;
        let newest = newest.context("no valid copy of the record")?;
        let mut write = |offset: u64, bytes: &[u8; 512]| {
            let mut block = vec![0; device.block_size() as usize];
            device.read_at(offset, &mut block)?;
            block[..512].copy_from_slice(bytes);
            device.write_at(offset, &block)
        };
        if region == Region::RingNumbers {
            let event = Event {
                sequence: wrong,
                ..Event::new(
                    Stage::LOADER,
                    EventKind::REJECTED,
                    "from the end of numbers",
                )
            };
            let entry = QuarantineEntry {
                sequence: wrong,
                time: 0,
                digest: Digest([7; 32]),
                reason: "from the end of numbers".into(),
            };
            write(EVENT_RING + wrong % 256 * STRIDE, &event.encode())?;
            write(QUARANTINE_RING + 15 * STRIDE, &entry.encode())?;
            return Ok(Some(disk.contents()));
        }
        for copy in [newest, 1 - newest] {
            let mut block = vec![0; 4096];
            self.contents
                .read(Part::Whole, start + COPIES[copy], &mut block);
            let bytes = block.first_chunk().context("a short block")?;
            let mut record = Record::decode(bytes)?;
            record.sequence = wrong;
            write(COPIES[copy], &record.encode())?;
            if region == Region::RecordNumber {
                break;
            }
        }
        Ok(Some(disk.contents()))
    }

    /// Whether it changes anything.
    fn damage(
        &self,
        region: Region,
        damage: Damage,
        random: &mut Random,
        contents: &mut Contents,
    ) -> Result<bool> {
        let ranges = self.ranges(region)?;
        let before = read(&self.contents, &ranges);
        let mut after = before.clone();
        match damage {
            Damage::Unreadable => {
                let range = &ranges[random.below(ranges.len())];
                let at = range.start + random.below((range.end - range.start) as usize) as u64;
                contents.spoil(Part::Whole, at);
                return Ok(true);
            }
            Damage::FlippedBit => {
                let at = random.below(after.len());
                after[at] ^= 1 << random.below(8);
            }
            Damage::Zeros => after.fill(0),
            Damage::Random => after = random.bytes(after.len()),
            Damage::Truncated => {
                // Within what is there: most regions end in zeros.
                let end = after.iter().rposition(|byte| *byte != 0);
                let from = random.below(end.map_or(0, |last| last + 1));
                after[from..].fill(0);
            }
            Damage::Stale => after = read(self.old(region), &ranges),
            Damage::Misplaced | Damage::Swapped => {
                let Some(twin) = self.twin(region) else {
                    return Ok(false);
                };
                let twin = self.ranges(twin)?;
                let mut others = read(&self.contents, &twin);
                if damage == Damage::Swapped {
                    write(contents, &twin, &fitted(before.clone(), others.len()));
                }
                others = fitted(others, after.len());
                after = others;
            }
        }
        write(contents, &ranges, &after);
        Ok(after != before)
    }

    fn old(&self, region: Region) -> &Contents {
        match region {
            Region::PrimaryHeader
            | Region::PrimaryEntries
            | Region::PrimaryTable
            | Region::BackupHeader
            | Region::BackupEntries
            | Region::BackupTable => &self.image,
            _ => &self.older,
        }
    }
}

/// What is known of a slot by its header and manifest.
struct SlotLayout {
    header: SlotHeader,
    /// Where the manifest lies in the envelope.
    payload: Range<u64>,
    data_size: u64,
    root_size: u64,
}

fn label(name: &str) -> Result<Label> {
    match Label::from_label(name) {
        Some(label) => Ok(label),
        None => bail!("no partition {name}"),
    }
}

/// Of parts of different length, the shorter is continued with zeros.
fn fitted(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, 0);
    bytes
}

fn read(contents: &Contents, ranges: &[Range<u64>]) -> Vec<u8> {
    let mut bytes = vec![];
    for range in ranges {
        let from = bytes.len();
        bytes.resize(from + (range.end - range.start) as usize, 0);
        contents.read(Part::Whole, range.start, &mut bytes[from..]);
    }
    bytes
}

fn write(contents: &mut Contents, ranges: &[Range<u64>], mut bytes: &[u8]) {
    for range in ranges {
        let (now, rest) = bytes.split_at((range.end - range.start) as usize);
        contents.write(Part::Whole, range.start, now);
        bytes = rest;
    }
}
