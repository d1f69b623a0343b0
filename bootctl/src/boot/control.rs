//! What `bootctl` does to the boot state, in the order in which it does it.
//!
//! Each function computes the new record with a transition of `boot-core`, commits it, then appends
//! an event for people. Nothing here knows where the device comes from, so that tests and a crash
//! simulator run the code that runs in the field. A lost event never undoes a commit.
//!
//! | action | writes, in this order |
//! | --- | --- |
//! | activate, roll back | one commit, event |
//! | mark good | one commit, events (of a floor that rose too), quarantine entry zeroed |
//! | recovery's floor | one commit, event |
//! | `give_up`: a verdict against a version | quarantine entry, one commit, event |
//! | `give_up_damaged`, `abandon`: its bytes are damaged, nothing is said against the version | one commit, event |
//! | `root_lost`: the root of the slot that does not run is damaged | event, then as `abandon` where the running one is good |
//! | `release`: a version is staged, by force if it was in quarantine | quarantine entry zeroed, event |
//!
//! The quarantine comes before the commit that gives a slot up: after a power cut between the two,
//! the verdict is still known, and the next boot of that slot completes it ([`Control::unfinished`]).

use boot_core::event::{Event, EventKind, Stage};
use boot_core::floor::{Level, NotAdmitted};
use boot_core::quarantine::QuarantineEntry;
use boot_core::record::{Record, SlotStatus};
use boot_core::store::{BootState, CommitError, Loaded};
use boot_core::transition::{self, LONG_STREAK, RefusedBecause};
use boot_core::{Device, Digest, Nonce, Slot, Target};
use std::path::PathBuf;

use crate::failure::{Failure, Result};
use crate::os::lock::Lock;

/// What each event says about this run.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    pub booted: Target,
    /// Nonce of this start; zero if unknown.
    pub nonce: Nonce,
    /// What tells the time, in Unix seconds: a download may take hours.
    pub now: fn() -> i64,
}

/// The boot state over a device. Of this machine's, `boot` gives one to look at, one that holds the lock, or one that
/// takes it for each change ([`Control::lock`]).
pub struct Control<D: Device> {
    store: BootState<D>,
    context: Context,
    /// The lock, and for what it is taken.
    lock: Option<(PathBuf, String)>,
}

impl<D: Device> Control<D> {
    /// Over the `boot-state` partition.
    pub fn new(device: D, context: Context) -> Self {
        Self {
            store: BootState::new(device),
            context,
            lock: None,
        }
    }

    /// One that is open for longer than the lock may be held: [`Control::lock`] takes it for each change.
    #[must_use]
    pub fn locking(self, path: PathBuf, what: &str) -> Self {
        Self {
            lock: Some((path, what.to_owned())),
            ..self
        }
    }

    /// Takes the lock for one change; what was read of the record before may be out of date.
    ///
    /// # Errors
    /// Somebody else holds it and does not let go.
    pub fn lock(&self) -> Result<Option<Lock>> {
        let taken = self.lock.as_ref();
        taken
            .map(|(path, what)| Lock::wait_for(path, what))
            .transpose()
    }

    /// The store itself.
    pub fn store(&mut self) -> &mut BootState<D> {
        &mut self.store
    }

    /// What is booted and so on.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Both copies.
    pub fn load(&mut self) -> Loaded {
        self.store.load()
    }

    /// The newest record.
    ///
    /// # Errors
    /// If neither copy is valid. The loader makes a new one at the next start.
    pub fn record(&mut self) -> Result<Record> {
        let loaded = self.store.load();
        let [first, second] = loaded.copies;
        loaded.record.ok_or_else(|| {
            Failure::failed(format!("neither copy is valid: {first}; {second}"))
                .doing("reading the boot-state record")
                .next(
                    "restart the machine: the loader makes a new record from the slots that verify",
                )
        })
    }

    /// Computes a record from the newest and commits it; the one that is then on the disk.
    pub fn change(
        &mut self,
        doing: &str,
        transition: impl FnOnce(&Record) -> Result<Record, RefusedBecause>,
    ) -> Result<Record> {
        let record = self.record()?;
        let next = transition(&record).map_err(|because| refused(because).doing(doing))?;
        if next == record {
            return Ok(record);
        }
        self.commit(doing, &next)
    }

    /// Fails unless both copies of the record can be written; what they say stays as it is.
    pub fn prove_writable(&mut self, doing: &str) -> Result<()> {
        // Each commit goes to the copy that is not the newest.
        for _ in 0..2 {
            let record = self.record()?;
            self.commit(doing, &record)?;
        }
        Ok(())
    }

    fn commit(&mut self, doing: &str, next: &Record) -> Result<Record> {
        self.store.commit(next).map_err(|error| {
            let failure = Failure::failed(&error).doing(format!("{doing}: writing the boot-state record"));
            match error {
                CommitError::Stale { .. } => failure.next("run the command again"),
                _ => failure.next(
                    "the copy from before is still valid; look at the disk (journalctl -k), then run the command again",
                ),
            }
        })
    }

    /// Appends an event; says so where that fails, and goes on.
    pub fn event(&mut self, kind: EventKind, about: Option<Target>, digest: Digest, text: &str) {
        let stage = match self.context.booted {
            Target::Recovery => Stage::RECOVERY,
            _ => Stage::BOOTCTL,
        };
        let event = Event {
            slot: about,
            time: (self.context.now)(),
            nonce: self.context.nonce,
            digest,
            ..Event::new(stage, kind, text)
        };
        if let Err(e) = self.store.append_event(&event) {
            eprintln!("bootctl: the event \"{text}\" could not be written: {e}");
        }
    }

    /// Makes `slot` the next one to start, on trial.
    pub fn activate(&mut self, slot: Slot) -> Result<Record> {
        let booted = self.context.booted;
        let record = self.change(&format!("activating slot {slot}"), |r| {
            transition::activate(r, slot, booted)
        })?;
        let entry = record.slot(slot);
        let (digest, version) = (entry.digest, entry.version);
        self.event(
            EventKind::ACTIVATED,
            Some(slot.into()),
            digest,
            &format!(
                "version {version} starts next, with {} tries",
                transition::TRIES
            ),
        );
        Ok(record)
    }

    /// How often `stage` has activated the manifest `digest` since it was last marked good, as far as history says.
    pub fn activations(&mut self, stage: Stage, digest: &Digest) -> usize {
        let mut events = self.store.events().unwrap_or_default();
        events.retain(|it| it.digest == *digest);
        let since = events
            .into_iter()
            .rev()
            .take_while(|it| it.kind != EventKind::MARKED_GOOD);
        since
            .filter(|it| it.kind == EventKind::ACTIVATED && it.stage == stage)
            .count()
    }

    /// Marks the booted slot good, raises the floor, and releases its manifest from quarantine.
    pub fn mark_good(&mut self, slot: Slot, digest: &Digest, why: &str) -> Result<Record> {
        let booted = self.context.booted;
        let before = self.record()?;
        let record = self.change(&format!("marking slot {slot} good"), |r| {
            transition::mark_good(r, slot, digest, booted).map(|r| transition::raise_floor(&r))
        })?;
        if !before.slot(slot).is_good() {
            let version = record.slot(slot).version;
            self.event(
                EventKind::MARKED_GOOD,
                Some(slot.into()),
                *digest,
                &format!("version {version}: {why}"),
            );
        }
        self.note_floor(None, before.floors.system, record.floors.system);
        self.release(digest)?;
        Ok(record)
    }

    /// Raises recovery's floor to the one that is in place, whole, if both slots are good: nothing older comes back.
    pub fn raise_recovery_floor(&mut self, installed: Level) -> Result<Record> {
        let before = self.record()?;
        let record = self.change("raising recovery's floor", |r| {
            Ok(transition::raise_recovery_floor(r, installed))
        })?;
        let floors = (before.floors.recovery, record.floors.recovery);
        self.note_floor(Some(Target::Recovery), floors.0, floors.1);
        Ok(record)
    }

    fn note_floor(&mut self, about: Option<Target>, from: Level, to: Level) {
        if from != to {
            let text = format!("from {from} to {to}");
            self.event(EventKind::FLOOR_RAISED, about, Digest::ZERO, &text);
        }
    }

    /// A verdict against `slot`: quarantines its manifest and gives it up.
    pub fn give_up(&mut self, slot: Slot, digest: &Digest, reason: &str) -> Result<Record> {
        let quarantined = self.quarantine(digest, reason);
        let record = self.abandon(slot, digest, reason)?;
        // The slot is left all the same; what is lost is that the same bundle would be refused.
        if let Err(e) = quarantined {
            eprintln!("bootctl: {e}");
        }
        Ok(record)
    }

    /// Gives `slot` up for what happened to its bytes. Nothing is said against the image: it may be installed again,
    /// and the other slot may hold it as well.
    pub fn abandon(&mut self, slot: Slot, digest: &Digest, reason: &str) -> Result<Record> {
        let record = self.change(&format!("giving up slot {slot}"), |r| {
            transition::give_up(r, slot, digest)
        })?;
        self.event(EventKind::GIVEN_UP, Some(slot.into()), *digest, reason);
        Ok(record)
    }

    /// Gives up a slot whose disk has rotted. Nothing speaks against its version: it does not go into quarantine.
    pub fn give_up_damaged(&mut self, slot: Slot, why: &str) -> Result<Record> {
        let digest = self.record()?.slot(slot).digest;
        self.abandon(slot, &digest, &format!("damaged: {why}"))
    }

    /// Keeps `digest` from being installed again, or its slot from being marked good.
    pub fn quarantine(&mut self, digest: &Digest, reason: &str) -> Result<()> {
        let now = (self.context.now)();
        self.store
            .quarantine(digest, reason, now)
            .map_err(|e| ring(e, &format!("quarantining manifest {digest}")))
    }

    /// Why the booted slot should have been given up already: it is on trial, and its manifest is
    /// quarantined, so a verdict was spoken that did not get as far as its commit.
    pub fn unfinished(&mut self, slot: Slot) -> Result<Option<QuarantineEntry>> {
        let record = self.record()?;
        let entry = record.slot(slot);
        if entry.is_good() || entry.status() == SlotStatus::Empty {
            return Ok(None);
        }
        self.quarantine_entry(&entry.digest)
    }

    /// Appends an event, once, that the starts of `slot` ended without a word: it used up its tries, or it is good and
    /// its userland did not come up. The loader, which counts them, has no words for it. Whether it did: then it is
    /// worth looking why.
    pub fn note_silent(&mut self, slot: Slot) -> Result<bool> {
        let entry = self.record()?.slot(slot).clone();
        let version = entry.version;
        let (kind, before, text) = match entry.status() {
            SlotStatus::Unproven => (
                EventKind::UNPROVEN,
                EventKind::ACTIVATED,
                format!("version {version}: no start ended in a verdict"),
            ),
            SlotStatus::Good if entry.failure_streak >= LONG_STREAK => (
                EventKind::NEVER_UP,
                EventKind::UNCLEAN_SHUTDOWN,
                format!(
                    "version {version}: {} starts in a row ended before its userland was up",
                    entry.failure_streak
                ),
            ),
            _ => return Ok(false),
        };
        let events = self
            .store
            .events()
            .map_err(|e| ring(e, "reading the event ring"))?;
        let last = events
            .iter()
            .filter(|it| it.slot == Some(slot.into()) && it.digest == entry.digest)
            .rfind(|it| [kind, before].contains(&it.kind));
        if last.is_some_and(|it| it.kind == kind && it.text == text) {
            return Ok(false);
        }
        self.event(kind, Some(slot.into()), entry.digest, &text);
        Ok(true)
    }

    /// What follows when the root of `slot`, which does not run, turns out not to be what was signed: an event, and
    /// where the machine runs in the other slot and that is good, the end of this one.
    pub fn root_lost(&mut self, slot: Slot, reason: &str) -> Result<()> {
        let record = self.record()?;
        let digest = record.slot(slot).digest;
        self.event(EventKind::ROOT_CORRUPT, Some(slot.into()), digest, reason);
        let other = slot.other();
        if self.context.booted == other.into() && record.slot(other).is_good() {
            self.abandon(slot, &digest, reason)?;
        }
        Ok(())
    }

    /// Prefers the slot beside the booted one.
    pub fn rollback(&mut self, booted: Slot, reason: &str) -> Result<Record> {
        let record = self.change(&format!("going back to slot {}", booted.other()), |r| {
            transition::rollback(r, booted)
        })?;
        let other = record.slot(booted.other());
        let (digest, version) = (other.digest, other.version);
        self.event(
            EventKind::ROLLED_BACK,
            Some(booted.other().into()),
            digest,
            &format!("to version {version}: {reason}"),
        );
        Ok(record)
    }

    /// Userland of the good slot `slot` is up.
    pub fn clear_streak(&mut self, slot: Slot) -> Result<Record> {
        self.change("clearing the failure streak", |r| {
            Ok(transition::clear_streak(r, slot))
        })
    }

    /// What the loader starts next, once.
    pub fn one_shot(&mut self, target: Target) -> Result<Record> {
        let record = self.change(&format!("starting {target} once"), |r| {
            transition::set_one_shot(r, Some(target))
        })?;
        self.event(
            EventKind::ONE_SHOT,
            Some(target),
            Digest::ZERO,
            "by an operator",
        );
        Ok(record)
    }

    /// Writes the damaged copy of the record again, if there is one and the other is valid.
    pub fn repair(&mut self) -> Result<bool> {
        let loaded = self.store.load();
        let damaged = loaded
            .copies
            .iter()
            .any(|c| !matches!(c, boot_core::store::CopyHealth::Valid { .. }));
        let (true, Some(record)) = (damaged, loaded.record) else {
            return Ok(false);
        };
        self.store.commit(&record).map_err(|e| {
            Failure::failed(e).doing("writing the damaged copy of the boot-state record again")
        })?;
        self.event(
            EventKind::COPY_REPAIRED,
            None,
            Digest::ZERO,
            "one copy of the record was damaged",
        );
        Ok(true)
    }

    /// Whether a manifest is in quarantine, and why.
    pub fn quarantine_entry(&mut self, digest: &Digest) -> Result<Option<QuarantineEntry>> {
        self.store
            .quarantine_entry(digest)
            .map_err(|e| ring(e, "reading the quarantine ring"))
    }

    /// Releases a manifest from quarantine.
    pub fn release(&mut self, digest: &Digest) -> Result<()> {
        let released = self
            .store
            .release(digest)
            .map_err(|e| ring(e, "releasing a manifest from quarantine"))?;
        if released {
            self.event(
                EventKind::RELEASED,
                None,
                *digest,
                "released from quarantine",
            );
        }
        Ok(())
    }
}

/// A ring that cannot be read or written.
fn ring(error: impl std::fmt::Display, doing: &str) -> Failure {
    Failure::failed(error)
        .doing(doing)
        .next("look at the disk (journalctl -k), then run the command again")
}

/// What to do about an image that the floors of this machine forbid.
pub fn not_admitted(refused: NotAdmitted) -> &'static str {
    match refused {
        NotAdmitted::SecurityVersion { .. } => {
            "the floor protects against old, vulnerable images: install a newer one; nothing was changed"
        }
        NotAdmitted::KeyringSerial { .. } => {
            "ask its publisher for a bundle under the newer keyring; nothing was changed"
        }
        NotAdmitted::SecurityVersionStep { .. } | NotAdmitted::KeyringSerialStep { .. } => {
            "it would drive up the floor, and lock out what its publisher makes next: ask for one that counts on from there; nothing was changed"
        }
    }
}

/// A refusal with what to do about it.
pub fn refused(because: RefusedBecause) -> Failure {
    let failure = Failure::refused(because);
    match because {
        RefusedBecause::NothingToFallBackTo(_) => failure.next(
            "wait for the health gate, or mark the booted slot good with `bootctl mark-good`; what only seems to start, because its disk has rotted, goes by `bootctl give-up`",
        ),
        RefusedBecause::Empty(_) => failure.next("install something into it with `bootctl install`"),
        RefusedBecause::NotAdmitted(refused) => failure.next(not_admitted(refused)),
        _ => failure.next("`bootctl status` shows the slots"),
    }
}
