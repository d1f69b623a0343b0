//! What the service decides: from what is known and what was just seen to what is done next. Pure.
//!
//! ```text
//! Begin ─ unfinished? ─ AskLastRun ─ Mark ─ Ready ─ ReadRoot or ClearStreak ─ Choose ─ Watch ─ Conclude ─ and on
//!            └ Conclude: the machine goes back, or all of the above but Watch
//! ```
//!
//! Whoever runs it does what it says, in that order, and tells it what came of that: the service over a machine, the
//! simulators over disks in memory. What is known is part of the service's report, so that a service that is started
//! again goes on where the one before was.
//!
//! A verdict is final. One that an earlier start did not get to commit (the manifest is in quarantine, its slot not
//! given up) is acted upon before anything else. Where the machine stays up all the same, what the profile asks for is
//! brought up, but no gate judges again, and nothing that is seen later marks that slot good.

pub mod idle;

use std::collections::VecDeque;

use boot_core::{Digest, Slot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boot::verdict::{Begun, Booted, Settled, Verdict};
use crate::failure::Result;
use crate::state::shutdown_marker::LastRun;

/// Looks in a row after which a machine that had to stay up, unwell, counts as well.
const WELL_FOR: u32 = 3;

/// Where the service has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the bring-up.
    #[default]
    Starting,
    /// Brings up what the profile asks for.
    BringingUp,
    /// Waits for everything to hold.
    Watching,
    /// The verdict was "healthy".
    Healthy,
    /// The verdict was "unhealthy", and the machine stays up.
    Degraded,
    /// On the way into the other slot.
    GoingBack,
}

impl Phase {
    /// As people read it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::BringingUp => "bringing up",
            Self::Watching => "watching",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::GoingBack => "going back to the other slot",
        }
    }
}

/// The verdict of this boot, as the report has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Spoken {
    /// Everything that the profile watches was well.
    Healthy,
    /// It was not.
    Unhealthy,
    /// The recovery system runs, which is not judged.
    Recovery,
}

impl Spoken {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Recovery => "recovery",
        }
    }
}

/// Whether the whole root was read, after an end that was not a clean shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RootRead {
    /// There was no reason to.
    #[default]
    NotAsked,
    /// Under way, or cut off.
    Pending,
    /// It is what was signed.
    Sound,
    /// It is not.
    Damaged,
    /// It could not be read, for another reason than damage.
    Failed,
}

/// What is known of this start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Known {
    /// Where the service has come to.
    pub phase: Phase,
    /// The verdict, once there is one.
    pub verdict: Option<Spoken>,
    /// Why that verdict.
    pub reason: Option<String>,
    /// Whether everything was brought up, once that has ended.
    #[serde(default)]
    pub brought_up: Option<bool>,
    /// Whether the slot had yet to prove itself when this boot began.
    #[serde(default)]
    pub on_trial: bool,
    /// Whether a start before this one spoke the verdict against the slot.
    #[serde(default)]
    pub condemned: bool,
    /// About the root.
    #[serde(default)]
    pub root: RootRead,
    /// What comes before anything is brought up has been done.
    #[serde(skip)]
    begun: bool,
    /// The starts of the other slot ended without a word, and nobody has looked why.
    #[serde(skip)]
    other_silent: bool,
    /// The profile asks for a reboot of a good slot that is not well.
    #[serde(skip)]
    reboots_good: bool,
    /// The gate is open.
    #[serde(skip)]
    watches: bool,
    /// Looks in a row at which everything held.
    #[serde(skip)]
    well_for: u32,
}

/// What is still to be done.
#[derive(Debug, Default)]
pub struct Todo(VecDeque<Action>);

impl Todo {
    /// Puts what follows from `seen` before all that is left.
    pub fn add(&mut self, known: &mut Known, seen: Seen) {
        for action in known.step(seen).into_iter().rev() {
            self.0.push_front(action);
        }
    }
}

impl Iterator for Todo {
    type Item = Action;

    fn next(&mut self) -> Option<Action> {
        self.0.pop_front()
    }
}

/// What was seen.
#[derive(Debug)]
pub enum Seen {
    /// The service has started; what the facts about this start disagree about.
    Started(Option<String>),
    /// What came of [`Action::Begin`].
    Begun(Result<Begun>),
    /// How the run before this one ended.
    LastRun(LastRun),
    /// Which profile is in force.
    Chosen(ProfileSeen),
    /// The gate's verdict.
    Judged(Verdict),
    /// The whole root has been read.
    Root(Root),
    /// What came of [`Action::Conclude`].
    Concluded {
        /// The verdict.
        verdict: Verdict,
        /// Why, for people.
        reason: String,
        /// What it came to.
        came_to: Result<Settled, NotWritten>,
    },
    /// One look after the verdict.
    Looked {
        /// Everything held.
        well: bool,
        /// The profile in force is the machine's own.
        profile_holds: bool,
    },
}

/// The profile, as far as decisions depend on it.
#[derive(Debug, Clone, Default)]
pub struct ProfileSeen {
    /// There is one.
    pub is_there: bool,
    /// Why it is not the one that it should be.
    pub problem: Option<String>,
    /// Why nothing may be brought up on what /state holds.
    pub unfit: Option<String>,
    /// A good slot that is not well is to be rebooted.
    pub reboots_good: bool,
}

/// How reading the whole root ended.
#[derive(Debug, Clone)]
pub enum Root {
    /// It is what was signed.
    Sound,
    /// It is not, and where.
    Damaged(String),
    /// It could not be read.
    Failed(String),
}

/// A verdict that could not be committed.
#[derive(Debug)]
pub struct NotWritten {
    /// Why not.
    pub why: String,
    /// The loader counts the tries of this slot, and there is another one: it may be left untold.
    pub may_leave: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the record whole and ask what the starts before left ([`Seen::Begun`]).
    Begin,
    /// Say that the machine is not well, and why.
    Degrade(String),
    /// Ask how the run before ended ([`Seen::LastRun`]).
    AskLastRun,
    /// Note that it did not end in an orderly way.
    NoteUnclean,
    /// Mark this run as one that has not ended.
    Mark,
    /// Tell systemd that the service is there.
    Ready,
    /// Tell the loader that userland is up.
    TellLoader,
    /// Begin to read the whole root ([`Seen::Root`], whenever that ends).
    ReadRoot,
    /// Note that the root is not what was signed.
    NoteCorrupt(String),
    /// Clear the slot's failure streak.
    ClearStreak,
    /// Choose the profile ([`Seen::Chosen`]).
    Choose,
    /// Bring up what the profile asks for, unless that was begun.
    BringUp,
    /// Bring it up, and look until there is a verdict ([`Seen::Judged`]) or the root has been read ([`Seen::Root`]).
    Watch,
    /// Commit a verdict ([`Seen::Concluded`]).
    Conclude(Verdict),
    /// Say where somebody may stand what the verdict came to.
    Announce(String),
    /// Keep the profile for recovery.
    KeepForRecovery,
    /// Forget why the machine was not well.
    ForgetDegraded,
    /// Read the root of the other slot, whose starts ended without a word.
    LookAtOther,
    /// Restart the machine. All for which it restarts by itself, systemd's reasons among them, stands above
    /// `Service::reboot`.
    Reboot,
    /// Restart it, unless that was done not long ago.
    RebootGood,
}

impl Known {
    /// Takes in what was seen; what follows from it, in order.
    pub fn step(&mut self, seen: Seen) -> Vec<Action> {
        match seen {
            Seen::Started(contradiction) => self.started(contradiction),
            Seen::Begun(begun) => self.take_begun(begun),
            Seen::LastRun(last) => self.take_last_run(last),
            Seen::Chosen(plan) => self.take_plan(plan),
            Seen::Judged(verdict) => {
                self.watches = false;
                vec![Action::Conclude(verdict)]
            }
            Seen::Root(root) => self.take_root(root),
            Seen::Concluded {
                verdict,
                reason,
                came_to,
            } => self.take_conclusion(&verdict, reason, came_to),
            Seen::Looked {
                well,
                profile_holds,
            } => self.take_look(well, profile_holds),
        }
    }

    /// The booted slot, as a verdict is committed on it.
    #[must_use]
    pub fn booted(&self, slot: Slot, digest: Option<Digest>) -> Booted {
        Booted {
            slot,
            digest,
            on_trial: self.on_trial,
            root_damaged: self.root == RootRead::Damaged,
        }
    }

    /// Why the machine stays up in a slot that is not well, if it does: the clock cannot be right, or the other slot
    /// does not start. A damaged root has nothing to do with the clock.
    pub fn stays(
        &self,
        implausible_clock: Option<String>,
        other_starts: impl FnOnce() -> Result<()>,
    ) -> Option<String> {
        match implausible_clock {
            Some(why) if self.root != RootRead::Damaged => {
                Some(format!("{why}; not going back for that"))
            }
            _ => other_starts()
                .err()
                .map(|e| format!("there is no other slot to go back to: {e}")),
        }
    }

    fn started(&mut self, contradiction: Option<String>) -> Vec<Action> {
        if self.verdict.is_none() {
            let mut actions: Vec<_> = contradiction.map(Action::Degrade).into_iter().collect();
            actions.push(Action::Begin);
            return actions;
        }
        // The service was started again: what it had not finished goes on. After a restart of userland alone the marker
        // says that the run has ended.
        self.begun = true;
        let mut actions = vec![Action::Mark, Action::Ready];
        if self.phase == Phase::GoingBack {
            actions.push(Action::Reboot);
        }
        if self.root_is_open() {
            actions.push(Action::ReadRoot);
        }
        actions.push(Action::Choose);
        actions
    }

    fn take_begun(&mut self, begun: Result<Begun>) -> Vec<Action> {
        let mut actions = Vec::new();
        let unfinished = begun.and_then(|begun| {
            self.on_trial = begun.on_trial;
            self.other_silent = begun.other_silent;
            begun.unfinished
        });
        match unfinished {
            Ok(Some(reason)) => {
                self.condemned = true;
                return vec![Action::Ready, Action::Conclude(Verdict::Unhealthy(reason))];
            }
            Ok(None) => {}
            Err(e) => actions.push(Action::Degrade(e.to_string())),
        }
        actions.push(Action::AskLastRun);
        actions
    }

    fn take_last_run(&mut self, last: LastRun) -> Vec<Action> {
        self.begun = true;
        let mut actions = Vec::new();
        if last == LastRun::Unclean {
            self.root = RootRead::Pending;
            actions.push(Action::NoteUnclean);
        }
        actions.extend([Action::Mark, Action::Ready, Action::TellLoader]);
        match self.root {
            RootRead::Pending | RootRead::Damaged => actions.push(Action::ReadRoot),
            RootRead::NotAsked | RootRead::Sound => actions.push(Action::ClearStreak),
            RootRead::Failed => {}
        }
        actions.push(Action::Choose);
        actions
    }

    fn take_plan(&mut self, plan: ProfileSeen) -> Vec<Action> {
        let mut actions = Vec::new();
        actions.extend(plan.problem.clone().map(Action::Degrade));
        actions.extend(plan.unfit.clone().map(Action::Degrade));
        if plan.unfit.is_some() {
            // A cluster made anew in memory would hide the one that is on the disk, and one that a newer version left
            // is not ours to start.
            self.brought_up = Some(false);
        }
        // With nothing kept, it could not know that it rebooted before, and would do so for ever.
        self.reboots_good = plan.reboots_good && plan.unfit.is_none();
        let holds = plan.is_there && plan.problem.is_none();
        // An image that cannot use the machine's state, or read its profile, is not one to stay in.
        let hopeless = plan
            .unfit
            .or_else(|| plan.problem.filter(|_| self.on_trial))
            .or_else(|| (!plan.is_there).then(|| "no profile is in force".into()));
        if self.verdict.is_some() || self.condemned {
            if holds && self.brought_up.is_none() {
                actions.push(Action::BringUp);
            }
            actions.extend(self.look_at_other());
        } else {
            self.watches = hopeless.is_none();
            actions.push(match hopeless {
                Some(why) => Action::Conclude(Verdict::Unhealthy(why)),
                None => Action::Watch,
            });
        }
        actions
    }

    fn take_root(&mut self, root: Root) -> Vec<Action> {
        let mut actions = match root {
            Root::Sound => {
                self.root = RootRead::Sound;
                vec![Action::ClearStreak]
            }
            Root::Damaged(lost) => {
                self.root = RootRead::Damaged;
                self.watches = false;
                return vec![
                    Action::NoteCorrupt(lost.clone()),
                    Action::Conclude(Verdict::Unhealthy(lost)),
                ];
            }
            Root::Failed(why) => {
                self.root = RootRead::Failed;
                vec![Action::Degrade(why)]
            }
        };
        if self.watches {
            actions.push(Action::Watch);
        }
        actions
    }

    fn take_conclusion(
        &mut self,
        verdict: &Verdict,
        reason: String,
        came_to: Result<Settled, NotWritten>,
    ) -> Vec<Action> {
        self.well_for = 0;
        let mut actions = Vec::new();
        let settled = match came_to {
            Ok(settled) => settled,
            Err(error) => {
                actions.push(Action::Degrade(error.why));
                if *verdict == Verdict::Healthy || !error.may_leave {
                    // Nothing is decided; should everything hold for a while, it is tried again.
                    self.phase = Phase::Degraded;
                    actions.extend(self.then());
                    return actions;
                }
                Settled::GoingBack
            }
        };
        self.verdict = Some(match verdict {
            Verdict::Healthy => Spoken::Healthy,
            Verdict::Unhealthy(_) => Spoken::Unhealthy,
        });
        self.reason = Some(reason.clone());
        let said = match settled {
            Settled::Healthy => reason.clone(),
            Settled::GoingBack => format!("unhealthy, going back: {reason}"),
            Settled::Noted | Settled::Stays(_) => format!("unhealthy, stays up: {reason}"),
        };
        actions.push(Action::Announce(said));
        self.phase = match settled {
            Settled::Healthy => {
                actions.push(Action::KeepForRecovery);
                Phase::Healthy
            }
            Settled::Noted => {
                actions.push(Action::Degrade(reason));
                if self.reboots_good {
                    actions.push(Action::RebootGood);
                }
                Phase::Degraded
            }
            Settled::Stays(why) => {
                actions.extend([Action::Degrade(reason), Action::Degrade(why)]);
                Phase::Degraded
            }
            Settled::GoingBack => {
                actions.push(Action::Reboot);
                Phase::GoingBack
            }
        };
        actions.extend(self.then());
        actions
    }

    /// What comes after a verdict.
    fn then(&mut self) -> Vec<Action> {
        if self.begun {
            self.look_at_other()
        } else if self.phase == Phase::GoingBack {
            vec![]
        } else {
            vec![Action::AskLastRun]
        }
    }

    fn look_at_other(&mut self) -> Vec<Action> {
        let looks = self.phase != Phase::GoingBack && std::mem::take(&mut self.other_silent);
        looks.then_some(Action::LookAtOther).into_iter().collect()
    }

    fn take_look(&mut self, well: bool, profile_holds: bool) -> Vec<Action> {
        self.well_for = if well { self.well_for + 1 } else { 0 };
        let comes_right = self.phase == Phase::Degraded
            && self.well_for >= WELL_FOR
            && profile_holds
            && self.may_come_right();
        if comes_right {
            vec![Action::ForgetDegraded, Action::Conclude(Verdict::Healthy)]
        } else {
            vec![]
        }
    }

    /// Whether a machine that stayed up may still be called healthy, should everything hold: not if the verdict was
    /// spoken before this start, not if the bring-up failed or has not ended, and not before the root is known to be
    /// whole. That a damaged one runs so far says nothing about the blocks not yet read.
    fn may_come_right(&self) -> bool {
        !self.condemned && self.brought_up == Some(true) && !self.root_is_open()
    }

    /// Whether the root is to be read. Damage that was found, but not yet acted upon, is found again.
    fn root_is_open(&self) -> bool {
        matches!(self.root, RootRead::Pending | RootRead::Damaged)
    }
}

#[cfg(test)]
mod tests;
