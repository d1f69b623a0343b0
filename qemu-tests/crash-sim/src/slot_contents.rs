//! What is in a slot, or in recovery's: by its header, and to the byte.

use boot_core::floor::Level;
use boot_core::slot_header::{read_header, read_slot};
use boot_core::verify::{Expect, Verify as _};
use boot_core::{Digest, Slot, Target};

use crate::disk::{Contents, Disk, Part};
use crate::images::Sample;
use crate::world::World;

/// What a slot with a header holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotContents {
    /// The manifest that the header names.
    pub(crate) digest: Digest,
    /// Whether everything is there: manifest, UKI, root.
    pub(crate) whole: bool,
    /// The fingerprint of its partitions, where it is not whole.
    damage: u64,
}

/// What each slot and recovery hold, in the order of [`Target::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllSlotContents([Option<SlotContents>; 3]);

impl AllSlotContents {
    /// On this disk.
    pub(crate) fn of(world: &World, contents: &Contents) -> Self {
        let disk = Disk::new(contents.clone());
        Self(Target::ALL.map(|target| contents_of(world, &disk, contents, target)))
    }

    /// In one of them; none if it has no header.
    pub(crate) fn of_target(&self, target: Target) -> Option<&SlotContents> {
        let (_, slot) = Target::ALL.iter().zip(&self.0).find(|it| *it.0 == target)?;
        slot.as_ref()
    }

    /// The manifest of what is whole in one of them.
    pub(crate) fn whole(&self, target: Target) -> Option<Digest> {
        let slot = self.of_target(target).filter(|slot| slot.whole)?;
        Some(slot.digest)
    }

    /// Whether what is not whole in one of them was so before, to the byte: it has rotted, and nobody wrote it.
    pub(crate) fn rotted(&self, target: Target, before: &Self) -> bool {
        let slot = self.of_target(target);
        slot.is_some_and(|it| !it.whole) && slot == before.of_target(target)
    }
}

fn contents_of(
    world: &World,
    disk: &Disk,
    contents: &Contents,
    target: Target,
) -> Option<SlotContents> {
    let digest = read_header(&mut disk.partition(Part::Boot(target)))
        .ok()?
        .manifest_digest;
    let whole = world
        .signed(disk, target)
        .is_some_and(|sample| sample.is_whole(contents, target));
    let part_of = |part: Part| {
        let root = target.slot().map(Part::Root);
        part == Part::Boot(target) || Some(part) == root
    };
    Some(SlotContents {
        digest,
        whole,
        damage: if whole {
            0
        } else {
            contents.fingerprint_of(part_of)
        },
    })
}

impl World {
    /// The image whose manifest verifies in a slot.
    fn signed(&self, disk: &Disk, target: Target) -> Option<&Sample> {
        let parts = read_slot(&mut disk.partition(Part::Boot(target))).ok()?;
        let expect = Expect {
            target,
            floor: Level::default(),
        };
        let verified = self.verify(&parts, &expect).ok()?;
        self.sample(&verified.digest)
    }

    /// What verifies in a slot, its UKI included, as the loader sees it without asking the record.
    pub(crate) fn holds(&self, disk: &Disk, slot: Slot) -> Option<&Sample> {
        let sample = self.signed(disk, slot.into())?;
        sample
            .has_its_uki(&disk.contents(), slot.into())
            .then_some(sample)
    }
}
