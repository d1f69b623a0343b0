//! What holds on every disk that a power cut leaves, and what a machine that starts from it may do.

use std::fmt;

use boot_core::boot::variable::FloorVariable;
use boot_core::floor::{Floors, Level, STEP};
use boot_core::record::{Record, SlotEntry, SlotStatus};
use boot_core::store::{BootState, CopyHealth};
use boot_core::{Digest, Slot, Target};

use crate::disk::{Contents, Disk, Operation, Part};
use crate::images::Nature;
use crate::slot_contents::AllSlotContents;
use crate::world::World;

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// A slot that verifies starts, without recovery and without a person; where none does, recovery.
    SomethingStarts,
    /// No slot starts of which a byte is missing.
    NothingHalfWritten,
    /// A slot header is there only with all of its slot; so is what the record says may start.
    HeaderLast,
    /// A start is on the disk before it happens: one try fewer, or a longer streak.
    Decrement,
    /// The machine comes to rest.
    NoLoop,
    /// Where there was a good slot, there is one, whole.
    GoodSlotKept,
    /// Tries do not come back by themselves.
    NoRefill,
    /// No floor falls.
    FloorHolds,
    /// The floor of systems is not above a good slot.
    FloorNotAboveFallback,
    /// No floor rises by more than a step.
    FloorInReach,
    /// Nothing below a floor starts.
    FloorCounts,
    /// Under Secure Boot firmware keeps floors, which do not fall.
    FirmwareKeeps,
    /// What is in quarantine is not marked good, and the machine does not rest in it.
    Quarantine,
    /// A copy of the record is valid.
    OneCopyValid,
    /// Nothing writes the slot that runs, and nothing else that it is not for.
    RunningSlotUntouched,
    /// Recovery is whole, unless both slots are good.
    RecoveryKept,
    /// What is done to a slot after the cut works as if there had been none.
    Works,
    /// A partition table that other tools accept is there.
    TableThere,
    /// No partition moves or shrinks, and nothing outside the table is written.
    PartitionsUntouched,
}

impl Invariant {
    pub(crate) const ALL: [Self; 19] = [
        Self::SomethingStarts,
        Self::NothingHalfWritten,
        Self::HeaderLast,
        Self::Decrement,
        Self::NoLoop,
        Self::GoodSlotKept,
        Self::NoRefill,
        Self::FloorHolds,
        Self::FloorNotAboveFallback,
        Self::FloorInReach,
        Self::FloorCounts,
        Self::FirmwareKeeps,
        Self::Quarantine,
        Self::OneCopyValid,
        Self::RunningSlotUntouched,
        Self::RecoveryKept,
        Self::Works,
        Self::TableThere,
        Self::PartitionsUntouched,
    ];

    /// As in docs/reliability.md.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SomethingStarts => "something-starts",
            Self::NothingHalfWritten => "nothing-half-written-starts",
            Self::HeaderLast => "header-last",
            Self::Decrement => "no-start-without-its-count",
            Self::NoLoop => "no-loop",
            Self::GoodSlotKept => "a-good-slot-is-kept",
            Self::NoRefill => "counters-never-refill",
            Self::FloorHolds => "floor-never-falls",
            Self::FloorNotAboveFallback => "floor-not-above-fallback",
            Self::FloorInReach => "floor-within-reach",
            Self::FloorCounts => "nothing-below-the-floor-starts",
            Self::FirmwareKeeps => "firmware-keeps-the-floors",
            Self::Quarantine => "quarantine-holds",
            Self::OneCopyValid => "one-copy-is-valid",
            Self::RunningSlotUntouched => "running-slot-is-not-written",
            Self::RecoveryKept => "recovery-is-kept",
            Self::Works => "what-follows-works",
            Self::TableThere => "a-table-is-there",
            Self::PartitionsUntouched => "partitions-are-untouched",
        }
    }

    /// Does not hold, and how.
    pub(crate) fn broken(self, how: impl fmt::Display) -> Violation {
        Violation {
            invariant: self,
            how: how.to_string(),
        }
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.name(), self.how)
    }
}

/// What is known of a disk before something is done to it.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    /// None where both copies were lost.
    record: Option<Record>,
    /// What the slots hold.
    pub(crate) slots: AllSlotContents,
    /// A slot is good and whole.
    has_good: bool,
    /// A slot is whole, healthy, not in quarantine, and started by itself by the record, if there is one: though none is
    /// good, one is to be.
    has_healthy: bool,
    /// None where the ring cannot be read.
    quarantined: Option<Vec<Digest>>,
    pub(crate) fingerprint: u64,
}

impl Before {
    /// Of this disk.
    pub(crate) fn of(world: &World, contents: &Contents) -> Self {
        let disk = Disk::new(contents.clone());
        let record = disk.record();
        let slots = AllSlotContents::of(world, contents);
        let ring = quarantined(&disk);
        let has_healthy = Slot::BOTH.into_iter().any(|slot| {
            let entry = record.as_ref().map(|record| record.slot(slot));
            slots.whole(slot.into()).is_some_and(|digest| {
                let starts = entry.is_none_or(|entry| {
                    let by_itself = matches!(entry.status(), SlotStatus::Trial | SlotStatus::Good);
                    by_itself && entry.digest == digest
                });
                let is_free = ring.as_ref().is_some_and(|ring| !ring.contains(&digest));
                let sample = world.sample(&digest);
                starts && is_free && sample.is_some_and(|it| it.nature == Nature::Healthy)
            })
        });
        Self {
            has_good: record
                .as_ref()
                .is_some_and(|record| good_slots(&slots, record).next().is_some()),
            has_healthy,
            record,
            slots,
            quarantined: ring,
            fingerprint: contents.fingerprint(),
        }
    }

    /// What the record had for a slot.
    fn slot(&self, slot: Slot) -> Option<&SlotEntry> {
        self.record.as_ref().map(|record| record.slot(slot))
    }
}

fn quarantined(disk: &Disk) -> Option<Vec<Digest>> {
    let entries = BootState::new(disk.partition(Part::State)).quarantined();
    Some(
        entries
            .ok()?
            .into_iter()
            .map(|entry| entry.digest)
            .collect(),
    )
}

/// Slots that the record calls good, and that are what it says, whole.
fn good_slots<'a>(
    slots: &'a AllSlotContents,
    record: &'a Record,
) -> impl Iterator<Item = Slot> + 'a {
    Slot::BOTH.into_iter().filter(move |slot| {
        let entry = record.slot(*slot);
        entry.is_good() && slots.whole((*slot).into()) == Some(entry.digest)
    })
}

/// What a cut left, before anything starts from it. What was in quarantine may have been `released`.
///
/// # Errors
/// The first invariant that does not hold.
pub(crate) fn check_cut(
    before: &Before,
    cut: &Before,
    contents: &Contents,
    released: bool,
) -> Result<(), Violation> {
    check_quarantine(before, cut, released)?;
    let Some(record) = &cut.record else {
        if before.record.is_none() {
            return Ok(());
        }
        let disk = Disk::new(contents.clone());
        let loaded = BootState::new(disk.partition(Part::State)).load();
        let copies = loaded.copies.map(|copy: CopyHealth| copy.to_string());
        return Err(Invariant::OneCopyValid.broken(copies.join("; ")));
    };
    if before.has_good && !cut.has_good {
        return Err(Invariant::GoodSlotKept.broken("no slot is good and whole"));
    }
    check_headers(before, cut, record)?;
    let good = good_slots(&cut.slots, record).count();
    if cut.slots.whole(Target::Recovery).is_none() && good < 2 {
        return Err(
            Invariant::RecoveryKept.broken(format!("it is gone, and {good} slots are good"))
        );
    }
    check_floor(before, record)
}

/// What was in quarantine is there still, unless a slot was marked good that holds it.
fn check_quarantine(before: &Before, cut: &Before, released: bool) -> Result<(), Violation> {
    let Some(now) = &cut.quarantined else {
        return Err(Invariant::Quarantine.broken("the ring cannot be read"));
    };
    let is_good = |digest: &Digest| {
        let record = cut.record.as_ref();
        record.is_some_and(|record| {
            Slot::BOTH.iter().any(|slot| {
                let entry = record.slot(*slot);
                entry.is_good() && entry.digest == *digest
            })
        })
    };
    let mut old = before.quarantined.iter().flatten();
    match old.find(|it| !now.contains(it) && !is_good(it)) {
        Some(lost) if !released => {
            Err(Invariant::Quarantine.broken(format!("{lost} is no longer in it")))
        }
        _ => Ok(()),
    }
}

/// What has rotted is as it was, or has no header any more; everything else with a header is whole.
fn check_headers(before: &Before, cut: &Before, record: &Record) -> Result<(), Violation> {
    let rotted = |target| cut.slots.rotted(target, &before.slots);
    for target in Target::ALL {
        let slot = cut.slots.of_target(target);
        if slot.is_some_and(|it| !it.whole) && !rotted(target) {
            return Err(Invariant::HeaderLast
                .broken(format!("{target} has a header, and not all of its image")));
        }
    }
    for slot in Slot::BOTH {
        let entry = record.slot(slot);
        // A slot that is being emptied may have lost its header already: it does not start, and nobody misses it.
        let emptied = cut.slots.of_target(slot.into()).is_none()
            && before
                .slot(slot)
                .is_some_and(|old| old.digest == entry.digest);
        let whole = cut.slots.whole(slot.into()).is_some();
        if entry.is_startable() && !whole && !emptied && !rotted(slot.into()) {
            return Err(Invariant::HeaderLast.broken(format!(
                "the record lets slot {slot} start, which is not whole"
            )));
        }
    }
    Ok(())
}

fn check_floor(before: &Before, record: &Record) -> Result<(), Violation> {
    let (old, now) = (before.record.as_ref().map(|old| old.floors), record.floors);
    if let Some(old) = old {
        if old.max(now) != now {
            return Err(Invariant::FloorHolds.broken(format!("from {old:?} to {now:?}")));
        }
        let numbers = |floors: Floors| FloorVariable::ALL.map(|it| it.of(&floors));
        let mut pairs = numbers(old).into_iter().zip(numbers(now));
        if pairs.any(|(old, now)| now - old > STEP) {
            return Err(Invariant::FloorInReach.broken(format!("from {old:?} to {now:?}")));
        }
    }
    let lowest: Option<Level> = Slot::BOTH
        .into_iter()
        .map(|slot| record.slot(slot))
        .filter(|entry| entry.is_good())
        .map(SlotEntry::level)
        .reduce(Level::min);
    match lowest {
        Some(lowest) => now.system.admits(lowest).map_err(|above| {
            Invariant::FloorNotAboveFallback.broken(format!("of a good slot, {above}"))
        }),
        // Nothing speaks for the floor of a record that was made anew.
        None if before.record.is_none() && now.system != Level::default() => {
            let how = format!("{}, and no slot is good", now.system);
            Err(Invariant::FloorNotAboveFallback.broken(how))
        }
        None => Ok(()),
    }
}

/// What the machine came to that started from a cut, and wrote on the way.
///
/// # Errors
/// The first invariant that does not hold.
pub(crate) fn check_rest(
    world: &World,
    cut: &Before,
    disk: &Disk,
    log: &[Operation],
    rests: Target,
) -> Result<(), Violation> {
    check_writes(log, &[])?;
    let Some(record) = disk.record() else {
        return Err(Invariant::OneCopyValid.broken("none at rest"));
    };
    let Some(quarantined) = &cut.quarantined else {
        return Err(Invariant::Quarantine.broken("the ring cannot be read"));
    };
    for slot in Slot::BOTH {
        let new = record.slot(slot);
        // A lost record is made anew, with one try for each slot that verifies.
        let Some(old) = cut.slot(slot) else { continue };
        if old.digest == new.digest && new.tries > old.tries {
            return Err(Invariant::NoRefill
                .broken(format!("slot {slot}: from {} to {}", old.tries, new.tries)));
        }
        // A slot that was good before is told so again, and released.
        let condemned = quarantined.contains(&new.digest) && !old.is_good();
        if condemned
            && (new.is_good() || rests == slot.into())
            && good_slots(&cut.slots, &record).any(|good| good != slot)
        {
            return Err(
                Invariant::Quarantine.broken(format!("slot {slot} is in quarantine, and stays"))
            );
        }
    }
    let one_is_good = good_slots(&cut.slots, &record).next().is_some();
    if (cut.has_good || cut.has_healthy) && !one_is_good {
        return Err(Invariant::GoodSlotKept.broken("no slot is good and whole at rest"));
    }
    if let Some(slot) = rests.slot()
        && let Some(sample) = world.holds(disk, slot)
        && sample.nature == Nature::Healthy
        && !record.slot(slot).is_good()
    {
        return Err(Invariant::Works.broken(format!("slot {slot} is healthy, and not marked good")));
    }
    check_floor(cut, &record)
}

/// What was written, where besides `boot-state` only `allowed` may be.
///
/// # Errors
/// If something else was: the slot that ran, or recovery.
pub(crate) fn check_writes(log: &[Operation], allowed: &[Part]) -> Result<(), Violation> {
    for operation in log {
        if let Operation::Write(part, ..) = operation
            && !matches!(part, Part::State | Part::Firmware)
            && !allowed.contains(part)
        {
            return Err(Invariant::RunningSlotUntouched.broken(format!("{part:?} is written")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histories::{ONE, RECOVERY, samples};
    use crate::machine::new_disk;
    use crate::sabotage::Sabotage;
    use boot_core::SecurityVersion;
    use boot_core::quarantine::ENTRIES;
    use boot_core::store::{COPIES, QUARANTINE_RING, STRIDE};

    fn new_machine() -> (World, Contents) {
        let world = World::new(samples().unwrap());
        let contents = new_disk(512, &world.samples[ONE], &world.samples[RECOVERY]).unwrap();
        (world, contents)
    }

    #[test]
    fn a_quarantine_that_cannot_be_read_or_loses_an_entry_does_not_hold() {
        let (world, contents) = new_machine();
        let disk = Disk::new(contents.clone());
        let digest = Digest([7; 32]);
        let mut state = BootState::new(disk.partition(Part::State));
        state.quarantine(&digest, "does not come up", 0).unwrap();
        let with = disk.contents();
        let before = Before::of(&world, &with);
        check_cut(&before, &before, &with, false).unwrap();
        let cut = Before::of(&world, &contents);
        let without = check_cut(&before, &cut, &contents, false).unwrap_err();
        assert_eq!(without.invariant, Invariant::Quarantine);
        check_cut(&before, &cut, &contents, true).unwrap();

        let mut unreadable = with;
        for entry in 0..ENTRIES {
            unreadable.spoil(Part::State, QUARANTINE_RING + entry * STRIDE);
        }
        let cut = Before::of(&world, &unreadable);
        let found = check_cut(&before, &cut, &unreadable, true).unwrap_err();
        assert_eq!(found.invariant, Invariant::Quarantine);
    }

    #[test]
    fn after_a_lost_record_a_slot_is_good_again_and_the_floor_is_no_higher() {
        let (world, contents) = new_machine();
        let record = Disk::new(contents.clone()).record().unwrap();
        let mut lost = contents;
        for copy in COPIES {
            lost.write(Part::State, copy, &[0; 512]);
        }
        let cut = Before::of(&world, &lost);
        let rests_with = |change: &dyn Fn(&mut Record)| {
            let disk = Disk::new(lost.clone());
            let mut made = record.clone();
            change(&mut made);
            let mut state = BootState::new(disk.partition(Part::State));
            state.commit(&made).unwrap();
            let rests = check_rest(&world, &cut, &disk, &disk.take_log(), Target::Recovery);
            rests.err().map(|it| it.invariant)
        };
        let good = |record: &mut Record| {
            let contents = world.samples[ONE].image.contents();
            *record =
                boot_core::transition::mark_good(record, Slot::A, &contents.digest, Target::A)
                    .unwrap();
        };
        assert_eq!(rests_with(&good), None);
        assert_eq!(rests_with(&|_| {}), Some(Invariant::GoodSlotKept));
        let disk = Disk::new(lost.clone());
        let mut made = record.clone();
        made.floors.system.security_version = SecurityVersion(9);
        let mut state = BootState::new(disk.partition(Part::State));
        state.commit(&made).unwrap();
        let made = Before::of(&world, &disk.contents());
        let found = check_cut(&cut, &made, &disk.contents(), false).unwrap_err();
        assert_eq!(found.invariant, Invariant::FloorNotAboveFallback);
    }

    fn page() -> String {
        let page = concat!(env!("STERNPOST_SOURCE"), "/docs/reliability.md");
        std::fs::read_to_string(page).unwrap()
    }

    #[test]
    fn the_page_names_every_invariant() {
        for invariant in Invariant::ALL {
            let name = format!("`{}`", invariant.name());
            assert!(page().contains(&name), "{name} is missing");
        }
    }

    /// That they do catch it is for the run to find out.
    #[test]
    fn the_page_says_what_catches_every_wrong_system() {
        for sabotage in Sabotage::ALL {
            let names = sabotage
                .caught_by()
                .iter()
                .map(|it| format!("`{}`", it.name()));
            let names: Vec<_> = names.collect();
            let row = page()
                .lines()
                .find(|line| line.starts_with(&format!("| `{}`: ", sabotage.name())))
                .map(str::to_owned);
            let end = format!("| {} |", names.join(", "));
            assert!(
                row.is_some_and(|row| row.ends_with(&end)),
                "{}: {end}",
                sabotage.name()
            );
        }
    }

    #[test]
    fn every_invariant_catches_a_wrong_system() {
        for invariant in Invariant::ALL {
            let caught = Sabotage::ALL
                .iter()
                .any(|it| it.caught_by().contains(&invariant));
            assert!(caught, "{} has never caught anything", invariant.name());
        }
    }
}
