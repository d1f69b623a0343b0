//! What holds on every disk that a power cut leaves, and what a machine that starts from it may do.

use std::fmt;

use boot_core::record::{Record, SlotEntry};
use boot_core::store::{BootState, CopyHealth};
use boot_core::{Digest, SecurityVersion, Slot, Target};

use crate::disk::{Contents, Disk, Operation, Part};
use crate::held::AllHeld;
use crate::images::Nature;
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
    /// The security floor does not fall.
    FloorHolds,
    /// The security floor is not above a good slot.
    FloorNotAboveFallback,
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
    /// All of them.
    pub(crate) const ALL: [Self; 16] = [
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
    /// What the slots hold.
    pub(crate) held: AllHeld,
    has_good: bool,
    quarantined: Vec<Digest>,
    /// Of all of it.
    pub(crate) fingerprint: u64,
}

impl Before {
    /// Of this disk.
    pub(crate) fn of(world: &World, contents: &Contents) -> Self {
        let disk = Disk::new(contents.clone());
        let record = disk.record();
        let held = AllHeld::of(world, contents);
        Self {
            has_good: record
                .as_ref()
                .is_some_and(|record| good_slots(&held, record).next().is_some()),
            record,
            held,
            quarantined: quarantined(&disk),
            fingerprint: contents.fingerprint(),
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
fn good_slots<'a>(held: &'a AllHeld, record: &'a Record) -> impl Iterator<Item = Slot> + 'a {
    Slot::BOTH.into_iter().filter(move |slot| {
        let entry = record.slot(*slot);
        entry.is_good() && held.whole((*slot).into()) == Some(entry.digest)
    })
}

/// What a cut left, before anything starts from it.
///
/// # Errors
/// The first invariant that does not hold.
pub(crate) fn check_cut(
    before: &Before,
    cut: &Before,
    contents: &Contents,
) -> Result<(), Violation> {
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
    let good = good_slots(&cut.held, record).count();
    if cut.held.whole(Target::Recovery).is_none() && good < 2 {
        return Err(
            Invariant::RecoveryKept.broken(format!("it is gone, and {good} slots are good"))
        );
    }
    check_floor(before, record)
}

/// What has rotted is as it was, or has no header any more; everything else with a header is whole.
fn check_headers(before: &Before, cut: &Before, record: &Record) -> Result<(), Violation> {
    let rotted = |target| cut.held.rotted(target, &before.held);
    for target in Target::ALL {
        let held = cut.held.of_target(target);
        if held.is_some_and(|it| !it.whole) && !rotted(target) {
            return Err(Invariant::HeaderLast
                .broken(format!("{target} has a header, and not all of its image")));
        }
    }
    for slot in Slot::BOTH {
        let entry = record.slot(slot);
        // A slot that is being emptied may have lost its header already: it does not start, and nobody misses it.
        let emptied = cut.held.of_target(slot.into()).is_none()
            && before
                .slot(slot)
                .is_some_and(|old| old.digest == entry.digest);
        let whole = cut.held.whole(slot.into()).is_some();
        if entry.is_startable() && !whole && !emptied && !rotted(slot.into()) {
            return Err(Invariant::HeaderLast.broken(format!(
                "the record lets slot {slot} start, which is not whole"
            )));
        }
    }
    Ok(())
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
    rests: Target,
) -> Result<(), Violation> {
    check_writes(log, &[])?;
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
            && (new.is_good() || rests == slot.into())
            && good_slots(&cut.held, &record).any(|good| good != slot)
        {
            return Err(
                Invariant::Quarantine.broken(format!("slot {slot} is in quarantine, and stays"))
            );
        }
    }
    if cut.has_good && good_slots(&cut.held, &record).next().is_none() {
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
            && *part != Part::State
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
    use crate::wrong::Wrong;

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
        for wrong in Wrong::ALL {
            let names = wrong
                .caught_by()
                .iter()
                .map(|it| format!("`{}`", it.name()));
            let names: Vec<_> = names.collect();
            let row = page()
                .lines()
                .find(|line| line.starts_with(&format!("| `{}`: ", wrong.name())))
                .map(str::to_owned);
            let end = format!("| {} |", names.join(", "));
            assert!(
                row.is_some_and(|row| row.ends_with(&end)),
                "{}: {end}",
                wrong.name()
            );
        }
    }

    #[test]
    fn every_invariant_catches_a_wrong_system() {
        for invariant in Invariant::ALL {
            let caught = Wrong::ALL
                .iter()
                .any(|it| it.caught_by().contains(&invariant));
            assert!(caught, "{} has never caught anything", invariant.name());
        }
    }
}
