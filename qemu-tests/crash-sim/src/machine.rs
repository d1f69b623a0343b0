//! A machine with one disk: starts it as the field does, with the loader's own decision and `bootctl`'s own changes,
//! until it stands in a slot that stays.

use std::cell::RefCell;

use boot_core::boot::Boot;
use boot_core::floor::{Floors, Level};
use boot_core::record::Record;
use boot_core::select::{Candidate, RECOVERY_STREAK, Why, may_arm_timer};
use boot_core::store::BootState;
use boot_core::{Digest, Nonce, Slot, Target};
use bootctl::boot::control::{Context, Control};
use bootctl::boot::root_scan;
use bootctl::boot::slot_check;
use bootctl::boot::verdict::Verdict;
use bootctl::failure::{Code, Failure};
use bootctl::service::step::{Action, Known, ProfileSeen, Seen, Todo};
use bootctl::state::shutdown_marker::LastRun;

use crate::disk::{Contents, Disk, Part, Partition};
use crate::histories::Quirk;
use crate::images::{Nature, Sample};
use crate::invariants::{Invariant, Violation};
use crate::nvram::Nvram;
use crate::sabotage::Sabotage;
use crate::slot_contents::AllSlotContents;
use crate::world::{Firmware, World};

/// More starts than any machine may need to come to rest.
const STARTS: usize = 24;

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The machine stays.
    Rests(Target),
    /// It stays in recovery, which nobody asked for, until somebody comes or it starts again by itself.
    InRecovery,
    /// It starts again.
    Restarts,
}

/// What the loader starts.
struct Chosen {
    target: Target,
    digest: Digest,
    why: Why,
    /// Whether the loader wrote it down.
    recorded: bool,
}

/// A machine over a disk.
pub(crate) struct Machine<'w> {
    world: &'w World,
    disk: Disk,
    /// What was in its slots when they were last known to be as somebody left them.
    known: AllSlotContents,
    /// What it says, where somebody listens.
    told: Option<&'w RefCell<Vec<String>>>,
}

impl<'w> Machine<'w> {
    /// Over this disk. What of a slot in `known` is not whole has rotted: dm-verity stops it, if it starts.
    pub(crate) fn new(
        world: &'w World,
        disk: Disk,
        known: AllSlotContents,
        told: Option<&'w RefCell<Vec<String>>>,
    ) -> Self {
        Self {
            world,
            disk,
            known,
            told,
        }
    }

    fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(told) = self.told {
            told.borrow_mut().push(line());
        }
    }

    /// `bootctl`'s hold on the boot state while `booted` runs.
    pub(crate) fn control(&self, booted: Target) -> Control<Partition> {
        let context = Context {
            booted,
            nonce: Nonce::ZERO,
            now: || 1_800_000_000,
        };
        Control::new(self.disk.partition(Part::State), context)
    }

    /// Starts the machine until it rests; in what.
    ///
    /// Left alone, recovery starts the machine again: it is where the machine rests if it comes back to it.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn until_it_rests(&self) -> Result<Target, Violation> {
        let mut recovered = false;
        for _ in 0..STARTS {
            match self.start(true)? {
                Ended::Rests(target) => return Ok(target),
                Ended::InRecovery if recovered => return Ok(Target::Recovery),
                Ended::InRecovery => recovered = true,
                Ended::Restarts => {}
            }
        }
        Err(Invariant::NoLoop.broken(format!("{STARTS} starts, and no rest")))
    }

    /// One start: the loader, the agent, and unless the plug is pulled (`up` is false) userland up to its verdict.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn start(&self, up: bool) -> Result<Ended, Violation> {
        let before = self.disk.record();
        let late = self.world.sabotage == Some(Sabotage::CommitAfterStart);
        let on_disk = late.then(|| self.disk.contents());
        let kept = Nvram::of(&self.disk).floors();
        let chosen = self.load()?;
        self.check_firmware(kept)?;
        let (target, digest) = (chosen.target, chosen.digest);
        let seen = on_disk.map_or_else(|| self.disk.clone(), Disk::new);
        let Some(sample) = self.world.sample(&digest) else {
            return Err(Invariant::NothingHalfWritten.broken(format!("{target} is no image")));
        };
        self.check_floor(before.as_ref(), kept.unwrap_or_default(), target, sample)?;
        let Some(slot) = target.slot() else {
            let asked = before
                .as_ref()
                .is_some_and(|it| it.one_shot == Some(target));
            self.check_recovery(before.as_ref(), asked, sample)?;
            if self.timer_ends(&chosen) {
                return Ok(Ended::Restarts);
            }
            return self.recover(asked);
        };
        self.check_start(&seen, before.as_ref(), slot, &chosen)?;
        if !self.is_all_there(slot, sample)? {
            self.tell(|| format!("slot {slot}: dm-verity restarts the machine"));
            return Ok(Ended::Restarts);
        }
        if self.timer_ends(&chosen) {
            return Ok(Ended::Restarts);
        }
        if !up || sample.nature == Nature::Silent {
            self.tell(|| format!("slot {slot}: userland does not come up"));
            return Ok(Ended::Restarts);
        }
        self.serve(slot, sample)
    }

    /// The loader's part.
    fn load(&self) -> Result<Chosen, Violation> {
        let fingerprint = self.disk.contents().fingerprint();
        let mut nonce = Nonce([1; 16]);
        nonce.0[..8].copy_from_slice(&fingerprint.to_le_bytes());
        let mut firmware = Firmware {
            world: self.world,
            state: Some(self.disk.partition(Part::State)),
            nvram: Nvram::of(&self.disk),
            slots: Target::ALL.map(|target| Some(self.disk.partition(Part::Boot(target)))),
            nonce,
            told: self.told,
        };
        let mut boot = Boot::new(self.world);
        let chosen = boot.next(&mut firmware).ok_or_else(|| {
            Invariant::SomethingStarts.broken("the loader finds nothing to start")
        })?;
        let gives_up = self.world.sabotage == Some(Sabotage::RecoveryAtOnce);
        Ok(Chosen {
            target: if gives_up && !boot.rejected().is_empty() {
                Target::Recovery
            } else {
                chosen.target
            },
            digest: chosen.verified.digest,
            why: chosen.why,
            recorded: chosen.recorded,
        })
    }

    /// Whether the hardware timer ends this start, on a machine on which it ends each start for which it is armed.
    fn timer_ends(&self, chosen: &Chosen) -> bool {
        let always = self.world.sabotage == Some(Sabotage::TimerAlwaysArmed);
        let candidate = Candidate {
            target: chosen.target,
            why: chosen.why,
        };
        let is_armed = always
            || self
                .disk
                .record()
                .is_some_and(|record| may_arm_timer(&record, candidate));
        let ends = is_armed && Nvram::of(&self.disk).has(Quirk::TimerTooEarly);
        if ends {
            self.tell(|| format!("{}: the timer restarts the machine", chosen.target));
        }
        ends
    }

    /// Under Secure Boot a start leaves floors in firmware, none lower than before.
    fn check_firmware(&self, before: Option<Floors>) -> Result<(), Violation> {
        let mut nvram = Nvram::of(&self.disk);
        if !nvram.has(Quirk::SecureBoot) {
            return Ok(());
        }
        let Some(now) = nvram.floors() else {
            return Err(Invariant::FirmwareKeeps.broken("a variable that is no floor is left"));
        };
        let before = before.unwrap_or_default();
        if before.max(now) == now {
            return Ok(());
        }
        Err(Invariant::FirmwareKeeps.broken(format!("from {before:?} to {now:?}")))
    }

    /// Nothing starts that is below what firmware `keeps`, nor below what the record says while something else that
    /// verifies is not.
    fn check_floor(
        &self,
        before: Option<&Record>,
        keeps: Floors,
        target: Target,
        sample: &Sample,
    ) -> Result<(), Violation> {
        let below = |floor: Level, sample: &Sample| floor.admits(sample.level()).err();
        if let Some(refused) = below(keeps.of(target), sample) {
            return Err(Invariant::FloorCounts.broken(format!("{target} starts: {refused}")));
        }
        let recorded = before.map_or_else(Floors::default, |record| record.floors);
        let mut others = Slot::BOTH
            .into_iter()
            .filter_map(|slot| self.world.holds(&self.disk, slot))
            .filter(|it| below(recorded.system.max(keeps.system), it).is_none());
        match below(recorded.of(target), sample) {
            Some(refused) if others.next().is_some() => {
                Err(Invariant::FloorCounts.broken(format!("{target} starts: {refused}")))
            }
            _ => Ok(()),
        }
    }

    /// Recovery starts if somebody asked for it, or if no slot that verifies may start; and once in a while before a
    /// slot that never comes up.
    fn check_recovery(
        &self,
        before: Option<&Record>,
        asked: bool,
        sample: &Sample,
    ) -> Result<(), Violation> {
        let may_start = |slot: Slot| {
            before.is_none_or(|record| {
                let entry = record.slot(slot);
                let comes_up = !entry.is_good() || entry.failure_streak < RECOVERY_STREAK;
                entry.is_startable() && comes_up
            })
        };
        let floor = Nvram::of(&self.disk).floors().unwrap_or_default().system;
        let mut better = Slot::BOTH.into_iter().filter(|slot| {
            let holds = self.world.holds(&self.disk, *slot);
            may_start(*slot) && holds.is_some_and(|it| floor.admits(it.level()).is_ok())
        });
        if !asked && let Some(slot) = better.next() {
            return Err(Invariant::SomethingStarts
                .broken(format!("recovery starts, beside slot {slot} that verifies")));
        }
        if !sample.is_whole(&self.disk.contents(), Target::Recovery) {
            return Err(Invariant::NothingHalfWritten
                .broken("recovery starts with a part of its image missing"));
        }
        Ok(())
    }

    /// Whether all of the image that starts is there; false if a block of its root has rotted, which dm-verity finds.
    fn is_all_there(&self, slot: Slot, sample: &Sample) -> Result<bool, Violation> {
        let contents = self.disk.contents();
        if sample.is_whole(&contents, slot.into()) {
            return Ok(true);
        }
        let rotted = AllSlotContents::of(self.world, &contents).rotted(slot.into(), &self.known);
        if rotted && sample.has_its_uki(&contents, slot.into()) {
            return Ok(false);
        }
        Err(Invariant::NothingHalfWritten.broken(format!(
            "slot {slot} starts with a part of its image missing"
        )))
    }

    /// Rule 2, as the disk has it at the moment of the start.
    fn check_start(
        &self,
        disk: &Disk,
        before: Option<&Record>,
        slot: Slot,
        chosen: &Chosen,
    ) -> Result<(), Violation> {
        let (digest, why, recorded) = (&chosen.digest, chosen.why, chosen.recorded);
        let Some(now) = disk.record().filter(|_| recorded && disk.is_flushed()) else {
            return Err(Invariant::Decrement
                .broken(format!("slot {slot} starts, and it is not on the disk")));
        };
        let entry = now.slot(slot);
        let counted = match before.map(|record| record.slot(slot)) {
            Some(old) if old.digest == *digest && !old.is_good() => entry.tries < old.tries,
            Some(old) if old.digest == *digest => entry.failure_streak > old.failure_streak,
            _ => true,
        };
        if now.last_tried != Some(slot.into()) || !(counted || why == Why::Uncounted) {
            return Err(Invariant::Decrement.broken(format!(
                "slot {slot} starts ({why}) with {} tries left on the disk",
                entry.tries
            )));
        }
        Ok(())
    }

    /// Recovery's `bootctl serve`.
    fn recover(&self, asked: bool) -> Result<Ended, Violation> {
        let mut control = self.control(Target::Recovery);
        for slot in control.begin_recovery().map_err(does_not_work)? {
            self.look_at(&mut control, slot)?;
        }
        self.tell(|| "recovery runs".into());
        Ok(if asked {
            Ended::Rests(Target::Recovery)
        } else {
            Ended::InRecovery
        })
    }

    /// What `bootctl serve` does about a slot whose starts ended without a word: it reads all of its root.
    fn look_at(&self, control: &mut Control<Partition>, slot: Slot) -> Result<(), Violation> {
        let mut boot = self.disk.partition(Part::Boot(slot.into()));
        let mut root = self.disk.partition(Part::Root(slot));
        match root_scan::of(&mut boot, &mut root) {
            Err(lost) if lost.code == Code::Verification => {
                self.tell(|| format!("slot {slot}: {lost}"));
                control
                    .root_lost(slot, &lost.to_string())
                    .map_err(does_not_work)
            }
            _ => Ok(()),
        }
    }

    /// `bootctl serve`, from its beginning to what its verdict comes to: what the service's own step says, done to this
    /// disk.
    fn serve(&self, slot: Slot, sample: &Sample) -> Result<Ended, Violation> {
        let mut control = self.control(slot.into());
        let mut known = Known::default();
        let mut todo = Todo::default();
        todo.add(&mut known, Seen::Started(None));
        while let Some(action) = todo.next() {
            let action = match self.world.sabotage {
                Some(sabotage) => match sabotage.instead_of(action, &mut control, slot) {
                    Ok(Some(action)) => action,
                    Ok(None) => continue,
                    Err(failure) => return Err(does_not_work(failure)),
                },
                None => action,
            };
            let seen = match action {
                Action::Begin => {
                    let begun = control.begin(slot).map_err(does_not_work)?;
                    begun.unfinished.as_ref().map_err(does_not_work)?;
                    Seen::Begun(Ok(begun))
                }
                // The marker lies on `state`, which this disk has not. What follows from an unclean end would find nothing:
                // a slot whose root has rotted did not get as far as userland (`is_all_there`).
                Action::AskLastRun => Seen::LastRun(LastRun::Clean),
                Action::Choose => Seen::Chosen(ProfileSeen {
                    is_there: true,
                    ..ProfileSeen::default()
                }),
                Action::Watch => Seen::Judged(match sample.nature {
                    Nature::Healthy => Verdict::Healthy,
                    _ => Verdict::Unhealthy("the node is not Ready".into()),
                }),
                Action::Conclude(verdict) => {
                    let booted = known.booted(slot, Some(sample.digest()));
                    let settled = control
                        .commit_verdict(&booted, &verdict, "healthy", |record| {
                            known.stays(None, || self.may_start(slot.other(), record))
                        })
                        .map_err(does_not_work)?;
                    self.tell(|| format!("slot {slot}: {verdict:?}: {settled:?}"));
                    Seen::Concluded {
                        verdict,
                        reason: String::new(),
                        came_to: Ok(settled),
                    }
                }
                Action::ClearStreak => {
                    control.clear_streak(slot).map_err(does_not_work)?;
                    continue;
                }
                Action::LookAtOther => {
                    self.look_at(&mut control, slot.other())?;
                    continue;
                }
                Action::Reboot => return Ok(Ended::Restarts),
                _ => continue,
            };
            todo.add(&mut known, seen);
        }
        Ok(Ended::Rests(slot.into()))
    }

    /// Fails unless the loader would start `slot`.
    fn may_start(&self, slot: Slot, record: &Record) -> Result<(), Failure> {
        let mut boot = self.disk.partition(Part::Boot(slot.into()));
        slot_check::may_start(&mut boot, slot, &self.world.trust, record)
    }
}

fn does_not_work(failure: impl std::fmt::Display) -> Violation {
    Invariant::Works.broken(failure)
}

/// A disk with an image in slot A and recovery, as an image builder makes it.
///
/// # Errors
/// If an image does not fit.
pub(crate) fn new_disk(sector: u32, first: &Sample, recovery: &Sample) -> anyhow::Result<Contents> {
    let disk = Disk::new(Contents::new(sector));
    let boot = Part::Boot(Target::Recovery);
    recovery.write_to(Target::Recovery, disk.partition(boot), None)?;
    let (boot, root) = (Part::Boot(Target::A), Part::Root(Slot::A));
    first.write_to(Target::A, disk.partition(boot), Some(disk.partition(root)))?;
    let record = boot_core::transition::first_image(first.image.contents());
    BootState::new(disk.partition(Part::State))
        .commit(&record)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(disk.contents())
}
