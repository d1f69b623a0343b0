//! What holds on every disk that a power cut leaves, and what a machine that starts from it may do.

use std::fmt;

use boot_core::record::{Record, SlotEntry};
use boot_core::store::{BootState, CopyHealth};
use boot_core::{Digest, SecurityVersion, Slot};

use crate::disk::{Contents, Disk, Operation, Part};
use crate::images::Nature;
use crate::machine::World;

/// What holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// A slot that verifies starts, without recovery and without a person.
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
    /// The security floor does not fall.
    FloorHolds,
    /// The security floor is not above a good slot.
    FloorNotAboveFallback,
    /// What is in quarantine is not marked good, and the machine does not rest in it.
    Quarantine,
    /// A copy of the record is valid.
    OneCopyValid,
    /// Nothing writes the slot that runs.
    RunningSlotUntouched,
    /// What is done to a slot after the cut works as if there had been none.
    Works,
    /// A partition table that other tools accept is there.
    TableThere,
    /// No partition moves or shrinks, and nothing outside the table is written.
    PartitionsUntouched,
}

impl Invariant {
    /// All of them.
    #[cfg(test)]
    const ALL: [Self; 15] = [
        Self::SomethingStarts,
        Self::NothingHalfWritten,
        Self::HeaderLast,
        Self::Decrement,
        Self::NoLoop,
        Self::GoodSlotKept,
        Self::NoRefill,
        Self::FloorHolds,
        Self::FloorNotAboveFallback,
        Self::Quarantine,
        Self::OneCopyValid,
        Self::RunningSlotUntouched,
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
            Self::Quarantine => "quarantine-holds",
            Self::OneCopyValid => "one-copy-is-valid",
            Self::RunningSlotUntouched => "running-slot-is-not-written",
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
    /// Which.
    pub(crate) invariant: Invariant,
    /// How.
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
    has_good: bool,
    quarantined: Vec<Digest>,
}

impl Before {
    /// Of this disk.
    pub(crate) fn of(world: &World, contents: &Contents) -> Self {
        let disk = Disk::new(contents.clone());
        let record = disk.record();
        let has_good = record
            .as_ref()
            .is_some_and(|record| good_slots(world, &disk, record).next().is_some());
        Self {
            record,
            has_good,
            quarantined: quarantined(&disk),
        }
    }

    /// What the record had for a slot.
    fn slot(&self, slot: Slot) -> Option<&SlotEntry> {
        self.record.as_ref().map(|record| record.slot(slot))
    }
}

fn quarantined(disk: &Disk) -> Vec<Digest> {
    let entries = BootState::new(disk.partition(Part::State)).quarantined();
    let entries = entries.unwrap_or_default();
    entries.into_iter().map(|entry| entry.digest).collect()
}

/// Slots that the record calls good, and that are what it says, whole.
fn good_slots<'a>(
    world: &'a World,
    disk: &'a Disk,
    record: &'a Record,
) -> impl Iterator<Item = Slot> + 'a {
    Slot::BOTH.into_iter().filter(move |slot| {
        let entry = record.slot(*slot);
        entry.is_good()
            && world.holds(disk, *slot).is_some_and(|sample| {
                sample.digest() == entry.digest && sample.is_whole(&disk.contents(), *slot)
            })
    })
}

/// What a cut left, before anything starts from it.
///
/// # Errors
/// The first invariant that does not hold.
pub(crate) fn check_cut(
    world: &World,
    before: &Before,
    cut: &Before,
    contents: &Contents,
) -> Result<(), Violation> {
    let disk = Disk::new(contents.clone());
    let Some(record) = &cut.record else {
        if before.record.is_none() {
            return Ok(());
        }
        let loaded = BootState::new(disk.partition(Part::State)).load();
        let copies = loaded.copies.map(|copy: CopyHealth| copy.to_string());
        return Err(Invariant::OneCopyValid.broken(copies.join("; ")));
    };
    if before.has_good && !cut.has_good {
        return Err(Invariant::GoodSlotKept.broken("no slot is good and whole"));
    }
    for slot in Slot::BOTH {
        let entry = record.slot(slot);
        let held = world.holds(&disk, slot);
        let whole = held.is_some_and(|sample| sample.is_whole(contents, slot));
        if held.is_some() && !whole {
            return Err(Invariant::HeaderLast.broken(format!(
                "slot {slot} has a header, and not all of its image"
            )));
        }
        // A slot that is being emptied may have lost its header already: it does not start, and nobody misses it.
        let emptied = held.is_none()
            && before
                .slot(slot)
                .is_some_and(|old| old.digest == entry.digest);
        if entry.is_startable() && !whole && !emptied {
            return Err(Invariant::HeaderLast.broken(format!(
                "the record lets slot {slot} start, which is not whole"
            )));
        }
    }
    check_floor(before, record)
}

fn check_floor(before: &Before, record: &Record) -> Result<(), Violation> {
    if let Some(old) = &before.record
        && record.floor < old.floor
    {
        let (from, to) = (old.floor, record.floor);
        return Err(Invariant::FloorHolds.broken(format!("from {from} to {to}")));
    }
    let lowest: Option<SecurityVersion> = Slot::BOTH
        .into_iter()
        .map(|slot| record.slot(slot))
        .filter(|entry| entry.is_good())
        .map(|entry| entry.security_version)
        .min();
    match lowest {
        Some(lowest) if record.floor > lowest => {
            Err(Invariant::FloorNotAboveFallback
                .broken(format!("{} is above {lowest}", record.floor)))
        }
        _ => Ok(()),
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
    rests: Slot,
) -> Result<(), Violation> {
    for operation in log {
        if let Operation::Write(part, ..) = operation
            && *part != Part::State
        {
            return Err(Invariant::RunningSlotUntouched.broken(format!("{part:?} is written")));
        }
    }
    let Some(record) = disk.record() else {
        return Err(Invariant::OneCopyValid.broken("none at rest"));
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
        let condemned = cut.quarantined.contains(&new.digest) && !old.is_good();
        if condemned
            && (new.is_good() || rests == slot)
            && good_slots(world, disk, &record).any(|good| good != slot)
        {
            return Err(
                Invariant::Quarantine.broken(format!("slot {slot} is in quarantine, and stays"))
            );
        }
    }
    if cut.has_good && good_slots(world, disk, &record).next().is_none() {
        return Err(Invariant::GoodSlotKept.broken("no slot is good and whole at rest"));
    }
    let sample = world.holds(disk, rests);
    if sample.is_some_and(|it| it.nature == Nature::Healthy) && !record.slot(rests).is_good() {
        return Err(
            Invariant::Works.broken(format!("slot {rests} is healthy, and not marked good"))
        );
    }
    check_floor(cut, &record)
}

/// What was written while `running` ran.
///
/// # Errors
/// If it was the slot that ran, or recovery.
pub(crate) fn check_writes(log: &[Operation], running: Slot) -> Result<(), Violation> {
    for operation in log {
        if let Operation::Write(part, ..) = operation {
            let own = *part == Part::Boot(running.into()) || *part == Part::Root(running);
            if own || *part == Part::Boot(boot_core::Target::Recovery) {
                return Err(Invariant::RunningSlotUntouched.broken(format!("{part:?} is written")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wrong::Wrong;

    #[test]
    fn the_page_names_every_invariant_and_every_wrong_system() {
        let page = concat!(env!("STERNPOST_SOURCE"), "/docs/reliability.md");
        let page = std::fs::read_to_string(page).unwrap();
        let invariants = Invariant::ALL.into_iter().map(Invariant::name);
        for name in invariants.chain(Wrong::ALL.into_iter().map(Wrong::name)) {
            assert!(page.contains(&format!("`{name}`")), "{name} is missing");
        }
    }
}
