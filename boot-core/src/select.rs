//! What a record says should be started, in which order.
//!
//! 1. The one-shot target, if it can start.
//! 2. Slots that are good or on trial with tries left: the higher priority first; then the good one;
//!    then the shorter failure streak; then A.
//! 3. But a good slot whose failure streak is long yields to another good one with a shorter streak.
//!
//! Recovery is in the list as the one-shot target, or once in front of a good slot that never comes up
//! (*recovery's turn*, [`yields_to_recovery`]). When nothing in the list starts, the last resort ([`round`]) goes through A, B
//! and recovery.
//!
//! Which of these starts a hardware timer may watch is decided here too ([`may_arm_timer`]): a timer that comes too early
//! ends what would have come up, and must not have a say in all of them.

use core::cmp::Reverse;

use crate::{
    record::{Record, SlotEntry, SlotStatus},
    slot::{Slot, Target},
    transition::LONG_STREAK,
};

/// From this failure streak on, and at every further [`LONG_STREAK`], recovery gets one start.
pub const RECOVERY_STREAK: u16 = 2 * LONG_STREAK;

/// Why something was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It comes first by priority, tries and failure streak.
    Priority,
    /// It was to be started once.
    OneShot,
    /// A start that changes no counter: the last resort, or recovery's turn. The hand-over has one word for both.
    #[serde(rename = "last-resort")]
    Uncounted,
    /// The record was lost and has been rebuilt from what verifies.
    Rebuilt,
    /// The record could not be written, so that only a good slot may start, or by chance recovery before it.
    Unrecorded,
}

impl Why {
    /// As in the hand-over.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::OneShot => "one-shot",
            Self::Uncounted => "last-resort",
            Self::Rebuilt => "rebuilt",
            Self::Unrecorded => "unrecorded",
        }
    }
}

impl core::fmt::Display for Why {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// Something to try to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The slot, or recovery.
    pub target: Target,
    /// Why it is its turn.
    pub why: Why,
}

/// The candidates of a record, best first; each comes once.
#[derive(Clone, Debug)]
pub struct Selector {
    one_shot: Option<Target>,
    recoverys_turn: bool,
    first: Option<Slot>,
    second: Option<Slot>,
}

impl Selector {
    /// What `record` says should be started.
    pub fn new(record: &Record) -> Self {
        let one_shot = record.one_shot.filter(|target| match target.slot() {
            Some(slot) => matches!(
                record.slot(slot).status(),
                SlotStatus::Good | SlotStatus::Trial | SlotStatus::Staged
            ),
            None => true,
        });
        let first = if a_goes_first(&record.a, &record.b) {
            Slot::A
        } else {
            Slot::B
        };
        let startable = |slot: Slot| {
            let wanted = record.slot(slot).is_startable() && one_shot != Some(slot.into());
            wanted.then_some(slot)
        };
        let (first, second) = (startable(first), startable(first.other()));
        Self {
            one_shot,
            // Somebody who asked for one start gets that one.
            recoverys_turn: one_shot.is_none()
                && record.last_tried != Some(Target::Recovery)
                && first
                    .or(second)
                    .is_some_and(|slot| yields_to_recovery(record.slot(slot))),
            first,
            second,
        }
    }
}

impl Iterator for Selector {
    type Item = Candidate;

    fn next(&mut self) -> Option<Candidate> {
        if let Some(target) = self.one_shot.take() {
            return Some(Candidate {
                target,
                why: Why::OneShot,
            });
        }
        if core::mem::take(&mut self.recoverys_turn) {
            return Some(Candidate {
                target: Target::Recovery,
                why: Why::Uncounted,
            });
        }
        let slot = self.first.take().or_else(|| self.second.take())?;
        Some(Candidate {
            target: slot.into(),
            why: Why::Priority,
        })
    }
}

/// Whether a good slot has ended [`RECOVERY_STREAK`] times, or a multiple of [`LONG_STREAK`] beyond that,
/// without its userland coming up.
///
/// A root that has rotted where every start reads it looks like this: dm-verity restarts the machine
/// before anything can give the slot up. It also looks like a plug that is pulled again and again, so the
/// slot stays good and comes right after: of any two starts in a row at most one is recovery's, and below
/// the saturated streak at most one in [`LONG_STREAK`] for each good slot.
fn yields_to_recovery(slot: &SlotEntry) -> bool {
    never_comes_up(slot) && slot.failure_streak.is_multiple_of(LONG_STREAK)
}

/// Whether a good slot has ended [`RECOVERY_STREAK`] times or more without its userland coming up.
pub fn never_comes_up(slot: &SlotEntry) -> bool {
    slot.is_good() && slot.failure_streak >= RECOVERY_STREAK
}

/// Whether the loader may arm a hardware timer for a start that `record` has counted already.
///
/// A kernel that hangs needs the timer; a machine whose timer fires before the agent can take it over needs a start
/// without. From outside the two look alike, so the timer is left out where the start before it may have ended by it
/// and nothing better is left: a good slot that has not come up since its last start; the last starts of a slot on trial
/// that has no good one to fall back to. It is not armed where no counter would tell that it fired: in the last resort,
/// and for recovery.
pub fn may_arm_timer(record: &Record, candidate: Candidate) -> bool {
    let Some(slot) = candidate.target.slot() else {
        return false;
    };
    let entry = record.slot(slot);
    match candidate.why {
        Why::Uncounted | Why::Unrecorded => false,
        Why::Priority | Why::OneShot | Why::Rebuilt if entry.is_good() => entry.failure_streak <= 1,
        Why::Priority | Why::OneShot | Why::Rebuilt => {
            entry.tries >= 2 || record.slot(slot.other()).is_good()
        }
    }
}

/// The order in which the last resort tries: what comes after `last_tried`, round to it.
pub fn round(last_tried: Option<Target>) -> [Target; 3] {
    let first = last_tried.map_or(Target::A, Target::next_in_round);
    let second = first.next_in_round();
    [first, second, second.next_in_round()]
}

fn a_goes_first(a: &SlotEntry, b: &SlotEntry) -> bool {
    if a.is_good() && b.is_good() {
        let yields = |slot: &SlotEntry, to: &SlotEntry| {
            slot.failure_streak >= LONG_STREAK && to.failure_streak < slot.failure_streak
        };
        match (yields(a, b), yields(b, a)) {
            (true, _) => return false,
            (_, true) => return true,
            _ => {}
        }
    }
    let rank = |slot: &SlotEntry| {
        (
            slot.priority,
            slot.is_good(),
            Reverse(if slot.is_good() {
                slot.failure_streak
            } else {
                0
            }),
        )
    };
    rank(a) >= rank(b)
}
