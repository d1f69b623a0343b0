//! Every change of the boot-state record, as a function from record to record. Nothing here writes;
//! [`BootState::commit`](crate::store::BootState::commit) does.
//!
//! The loader starts and rebuilds; `bootctl` does everything else. What bytes the current version does
//! not use is kept by all of them.

use crate::{
    floor::{Floors, Level, NotAdmitted},
    record::{MAX_PRIORITY, MAX_TRIES, Record, SlotContents, SlotEntry, SlotStatus},
    slot::{Slot, Target},
    types::{Digest, Nonce},
};

/// Tries that activating a slot gives it.
pub const TRIES: u8 = 3;

/// From this failure streak on, a good slot yields to another good one with a smaller streak.
pub const LONG_STREAK: u16 = 5;

/// Why a transition is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedBecause {
    /// It would change the slot that is running.
    #[error("slot {0} is the one that is running")]
    Booted(Slot),
    /// It is for the running slot alone.
    #[error("slot {0} is not the one that is running")]
    NotBooted(Slot),
    /// The slot could still start, and there is no good one beside it.
    #[error("slot {0} can still start, and slot {other} is not marked good", other = .0.other())]
    NothingToFallBackTo(Slot),
    /// Nothing is in the slot.
    #[error("slot {0} is empty")]
    Empty(Slot),
    /// Something is in the slot.
    #[error("slot {0} is not empty")]
    NotEmpty(Slot),
    /// The slot holds something else than what the caller meant.
    #[error("slot {0} holds another image than the one meant")]
    OtherContents(Slot),
    /// The slot is not in a state from which this can be done.
    #[error("slot {slot} is {status}")]
    Status {
        /// Which slot.
        slot: Slot,
        /// What it is.
        status: SlotStatus,
    },
    /// The image is below the floor of systems, or too far above it.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
}

type Refusable = Result<Record, RefusedBecause>;

/// The record of a new disk: `contents` in slot A, on trial. It gets all the tries that a record can
/// hold, because there is nothing to fall back to.
pub fn first_image(contents: SlotContents) -> Record {
    let mut record = Record::empty();
    record.a = SlotEntry {
        priority: MAX_PRIORITY,
        tries: MAX_TRIES,
        ..SlotEntry::of(contents)
    };
    record
}

/// The loader's commit before it loads `target`: last slot tried, fresh nonce, one-shot target
/// cleared, and one try fewer, or for a slot that was marked good a longer failure streak.
///
/// # Errors
/// If `target` is a slot that is empty or has neither been marked good nor tries left.
pub fn start(record: &Record, target: Target, nonce: Nonce) -> Refusable {
    let mut next = start_uncounted(record, target, nonce);
    if let Some(slot) = target.slot() {
        let entry = next.slot_mut(slot);
        match entry.status() {
            SlotStatus::Good => entry.failure_streak = entry.failure_streak.saturating_add(1),
            SlotStatus::Staged | SlotStatus::Trial => entry.tries = entry.tries.saturating_sub(1),
            SlotStatus::Empty => return Err(RefusedBecause::Empty(slot)),
            status => return Err(RefusedBecause::Status { slot, status }),
        }
    }
    Ok(next)
}

/// The loader's commit before it starts `target` in the last resort, because nothing else could, or recovery in its turn,
/// before a slot that never comes up. No counter changes.
pub fn start_uncounted(record: &Record, target: Target, nonce: Nonce) -> Record {
    Record {
        last_tried: Some(target),
        one_shot: None,
        nonce,
        ..record.clone()
    }
}

/// A new record for a disk that has no valid one: each slot that verified gets one try and is not
/// successful. The one with the higher security version goes first, A where they are equal. There is
/// no floor until a slot is marked good again (under Secure Boot the firmware's counts).
pub fn rebuild(a: Option<SlotContents>, b: Option<SlotContents>) -> Record {
    let entry = |contents: Option<SlotContents>, priority| {
        contents.map_or_else(SlotEntry::default, |contents| SlotEntry {
            priority,
            tries: 1,
            ..SlotEntry::of(contents)
        })
    };
    let version =
        |contents: Option<SlotContents>| contents.map(|contents| contents.level.security_version);
    let b_first = version(b) > version(a);
    let (first, second) = (MAX_PRIORITY, MAX_PRIORITY.saturating_sub(1));
    Record {
        a: entry(a, if b_first { second } else { first }),
        b: entry(b, if b_first { first } else { second }),
        ..Record::empty()
    }
}

/// Makes the record say of `slot` what is in it, after it turned out to be about another image: one try, not
/// successful, in the same place of the order. The floors stay.
pub fn adopt(record: &Record, slot: Slot, contents: SlotContents) -> Record {
    let mut next = without_one_shot(record, slot);
    let old = record.slot(slot);
    *next.slot_mut(slot) = SlotEntry {
        priority: old.priority.max(1),
        tries: 1,
        ..old.holding(contents)
    };
    next
}

/// Empties `slot`, so that it can be written: after its slot header has been zeroed, before anything
/// else of it changes.
///
/// # Errors
/// If it is running, or could still start while the other one is not good.
pub fn clear(record: &Record, slot: Slot, booted: Target) -> Refusable {
    not_booted(slot, booted)?;
    if record.slot(slot).is_startable() && !record.slot(slot.other()).is_good() {
        return Err(RefusedBecause::NothingToFallBackTo(slot));
    }
    let mut next = without_one_shot(record, slot);
    *next.slot_mut(slot) = record.slot(slot).emptied();
    Ok(next)
}

/// Records that `contents` are in `slot`, complete and verified: waiting to be activated.
///
/// # Errors
/// If the slot is running, is not empty, or the image is below the floor or too far above it.
pub fn stage(record: &Record, slot: Slot, contents: SlotContents, booted: Target) -> Refusable {
    not_booted(slot, booted)?;
    let entry = record.slot(slot);
    if entry.status() != SlotStatus::Empty {
        return Err(RefusedBecause::NotEmpty(slot));
    }
    record.floors.system.admits_new(contents.level)?;
    let mut next = record.clone();
    *next.slot_mut(slot) = SlotEntry {
        tries: TRIES,
        ..entry.holding(contents)
    };
    Ok(next)
}

/// Makes `slot` the next to start, on trial with [`TRIES`] tries; the other one comes after it.
///
/// # Errors
/// If it is running, or neither staged nor unproven. (To go back to a good slot is [`rollback`].)
pub fn activate(record: &Record, slot: Slot, booted: Target) -> Refusable {
    not_booted(slot, booted)?;
    match record.slot(slot).status() {
        SlotStatus::Staged | SlotStatus::Unproven => {}
        SlotStatus::Empty => return Err(RefusedBecause::Empty(slot)),
        status => return Err(RefusedBecause::Status { slot, status }),
    }
    let mut next = prefer(record, slot);
    let entry = next.slot_mut(slot);
    entry.tries = TRIES;
    entry.failure_streak = 0;
    Ok(next)
}

/// Marks the running slot good. `digest` is that of the manifest that runs.
///
/// Marking a slot good that is good already clears its failure streak.
///
/// # Errors
/// If it is not the running one, or the record has another manifest for it.
pub fn mark_good(record: &Record, slot: Slot, digest: &Digest, booted: Target) -> Refusable {
    if booted != Target::from(slot) {
        return Err(RefusedBecause::NotBooted(slot));
    }
    let mut next = record.clone();
    let entry = holding(&mut next, slot, digest)?;
    entry.successful = true;
    entry.tries = 0;
    entry.failure_streak = 0;
    entry.priority = entry.priority.max(1);
    Ok(next)
}

/// A verdict against `slot`: not started again until something else is installed in it.
///
/// # Errors
/// If the slot is empty or holds another manifest than `digest`.
pub fn give_up(record: &Record, slot: Slot, digest: &Digest) -> Refusable {
    let mut next = without_one_shot(record, slot);
    let entry = holding(&mut next, slot, digest)?;
    entry.priority = 0;
    entry.tries = 0;
    entry.successful = false;
    entry.failure_streak = 0;
    Ok(next)
}

/// Goes back to the slot beside the running one, which is to be good. A running slot that has not
/// proved itself loses its tries and becomes unproven; a good one stays good, in second place.
///
/// # Errors
/// If recovery is running (it has no slot beside it), or the other slot is not good.
pub fn rollback(record: &Record, booted: Slot) -> Refusable {
    let slot = booted.other();
    match record.slot(slot).status() {
        SlotStatus::Good => {}
        SlotStatus::Empty => return Err(RefusedBecause::Empty(slot)),
        status => return Err(RefusedBecause::Status { slot, status }),
    }
    let mut next = prefer(record, slot);
    next.slot_mut(slot).failure_streak = 0;
    let left = next.slot_mut(booted);
    if left.status() == SlotStatus::Trial {
        left.tries = 0;
    }
    Ok(next)
}

/// Userland of the good slot `slot` came up: its failure streak starts anew.
pub fn clear_streak(record: &Record, slot: Slot) -> Record {
    let mut next = record.clone();
    next.slot_mut(slot).failure_streak = 0;
    next
}

/// Raises the floor of systems to the lowest security version and the lowest keyring serial among the slots marked
/// good, each as far as that is in reach ([`Level::raised_to`]). Never lowers it, and never raises it above what could be
/// fallen back to.
pub fn raise_floor(record: &Record) -> Record {
    let good = Slot::BOTH
        .map(|slot| record.slot(slot))
        .into_iter()
        .filter(|slot| slot.is_good());
    let lowest = good.map(SlotEntry::level).reduce(Level::min);
    let system = record.floors.system;
    Record {
        floors: Floors {
            system: lowest.map_or(system, |lowest| system.raised_to(lowest)),
            ..record.floors
        },
        ..record.clone()
    }
}

/// Raises recovery's floor to a recovery system that was put in place of another, and was read back: there is none
/// to fall back to, so it is called once that one is whole. If one of the slots is not good, nothing rises: recovery may be
/// needed, and another one may have to be installed from outside, of whatever version is at hand.
pub fn raise_recovery_floor(record: &Record, installed: Level) -> Record {
    let recovery = record.floors.recovery;
    let both_good = Slot::BOTH.iter().all(|slot| record.slot(*slot).is_good());
    Record {
        floors: Floors {
            recovery: if both_good {
                recovery.raised_to(installed)
            } else {
                recovery
            },
            ..record.floors
        },
        ..record.clone()
    }
}

/// Makes the loader start `target` next, once; `None` takes that back.
///
/// # Errors
/// If `target` is a slot that has neither been marked good nor tries left.
pub fn set_one_shot(record: &Record, target: Option<Target>) -> Refusable {
    if let Some(slot) = target.and_then(Target::slot) {
        match record.slot(slot).status() {
            SlotStatus::Good | SlotStatus::Trial | SlotStatus::Staged => {}
            SlotStatus::Empty => return Err(RefusedBecause::Empty(slot)),
            status => return Err(RefusedBecause::Status { slot, status }),
        }
    }
    Ok(Record {
        one_shot: target,
        ..record.clone()
    })
}

fn not_booted(slot: Slot, booted: Target) -> Result<(), RefusedBecause> {
    if booted == Target::from(slot) {
        Err(RefusedBecause::Booted(slot))
    } else {
        Ok(())
    }
}

fn holding<'r>(
    record: &'r mut Record,
    slot: Slot,
    digest: &Digest,
) -> Result<&'r mut SlotEntry, RefusedBecause> {
    let entry = record.slot_mut(slot);
    if entry.digest.is_zero() {
        Err(RefusedBecause::Empty(slot))
    } else if entry.digest != *digest {
        Err(RefusedBecause::OtherContents(slot))
    } else {
        Ok(entry)
    }
}

/// `slot` first, the other one after it.
fn prefer(record: &Record, slot: Slot) -> Record {
    let mut next = record.clone();
    let other = next.slot_mut(slot.other());
    other.priority = other.priority.min(1);
    next.slot_mut(slot).priority = MAX_PRIORITY;
    next
}

fn without_one_shot(record: &Record, slot: Slot) -> Record {
    let one_shot = record
        .one_shot
        .filter(|target| *target != Target::from(slot));
    Record {
        one_shot,
        ..record.clone()
    }
}
