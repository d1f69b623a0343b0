//! The loader's decision, whole: record → candidates → commit → verify → next.
//!
//! [`Boot`] runs over [`Platform`], which the loader implements with firmware and a simulator with
//! memory. It never gives up while something verifies, and never waits:
//!
//! ```text
//! record valid? ──no──> probe A and B, rebuild (rule 6)
//!    │yes
//! candidates of the record: commit (rule 2) → verify (rule 5) → start; else the next one
//!    │none starts                  │commit fails
//!    │                             └─> good slots only, nothing written (rule 2, end)
//! last resort: A, B, recovery in turn, no counter changes (rule 8)
//! ```

use alloc::{
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use crate::{
    device::Device,
    event::{Event, EventKind, Stage},
    handover::Rejection,
    record::{Record, SlotContents},
    select::{self, Candidate, Selector, Why},
    slot::{Slot, Target},
    slot_header::{ReadSlotError, SlotHeader, read_slot},
    store::BootState,
    transition,
    trust::Trust,
    types::{Digest, Nonce, SecurityVersion},
    verify::{Expect, Rejected, Verified, verify_slot},
};

/// Security versions below which nothing starts, kept where only the loader can write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// Of slots A and B.
    pub system: SecurityVersion,
    /// Of recovery.
    pub recovery: SecurityVersion,
}

/// What the loader needs of the machine.
pub trait Platform {
    /// A partition.
    type Device: Device;
    /// A UKI in memory, the very bytes that were hashed.
    type Image;

    /// The `boot-state` partition of the disk that the loader was started from.
    fn boot_state(&mut self) -> Option<&mut Self::Device>;

    /// `boot-a`, `boot-b` or `boot-r` of that disk.
    fn slot(&mut self, target: Target) -> Option<&mut Self::Device>;

    /// Reads the UKI at `offset` of the slot into memory and hashes it, in one pass. `length` is the
    /// one that the verified manifest names.
    ///
    /// # Errors
    /// What went wrong, for a person.
    fn load_uki(
        &mut self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<(Self::Image, Digest), String>;

    /// Sixteen bytes that were never used before and are not all zero.
    fn nonce(&mut self) -> Nonce;

    /// One line for whoever watches the consoles.
    fn log(&mut self, line: fmt::Arguments<'_>);

    /// Seconds since 1970, if the clock can be read. For events only; nothing is decided by it.
    fn now(&mut self) -> Option<i64> {
        None
    }

    /// The floors that count under Secure Boot; none without.
    fn firmware_floors(&mut self) -> Option<Floors> {
        None
    }

    /// Raises them.
    ///
    /// # Errors
    /// What went wrong, for a person.
    fn raise_firmware_floors(&mut self, _floors: Floors) -> Result<(), String> {
        Ok(())
    }

    /// Verifies what a slot holds. Here so that a simulator can remember what it has verified before;
    /// nothing else has a reason to replace it.
    ///
    /// # Errors
    /// Why it is not to be started.
    fn verify(
        &mut self,
        trust: &Trust,
        header: &SlotHeader,
        envelope: &[u8],
        keyring: &[u8],
        expect: &Expect,
    ) -> Result<Verified, Rejected> {
        verify_slot(trust, header, envelope, keyring, expect)
    }
}

/// Something verified, to be started now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<I> {
    /// What.
    pub target: Target,
    /// Why.
    pub why: Why,
    /// The bytes to start.
    pub image: I,
    /// Its manifest, its digest, its keys.
    pub verified: Verified,
    /// The nonce in the newest record on the disk; zero if there is no record.
    pub nonce: Nonce,
    /// Whether this start is in the record.
    pub recorded: bool,
}

/// One start of the machine.
#[derive(Debug)]
pub struct Boot<'t> {
    trust: &'t Trust,
    phase: Phase,
    /// The newest record, as far as is known.
    record: Option<Record>,
    /// Whether the record was lost and made anew in this start.
    rebuilt: bool,
    /// Whether commits still work.
    writable: bool,
    /// The nonce for this start's commits.
    nonce: Nonce,
    firmware: Floors,
    queue: VecDeque<Candidate>,
    /// The last resort's order, decided by what the *start before* this one tried last.
    round: [Target; 3],
    rejected: Vec<Rejection>,
    /// Not tried again in this start.
    excluded: Vec<Target>,
    below_floor: Vec<Target>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    Candidates,
    LastResort,
}

/// Starts the decision and returns the first thing to start; [`Boot`] is for a loader that also has to
/// go on when the firmware will not start it.
pub fn choose<P: Platform>(platform: &mut P, trust: &Trust) -> Option<Chosen<P::Image>> {
    Boot::new(trust).next(platform)
}

impl<'t> Boot<'t> {
    /// A start, for the images that `trust` allows.
    pub fn new(trust: &'t Trust) -> Self {
        Self {
            trust,
            phase: Phase::Begin,
            record: None,
            rebuilt: false,
            writable: true,
            nonce: Nonce::ZERO,
            firmware: Floors::default(),
            queue: VecDeque::new(),
            round: Target::ALL,
            rejected: Vec::new(),
            excluded: Vec::new(),
            below_floor: Vec::new(),
        }
    }

    /// What was tried so far and not started, for the hand-over.
    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
    }

    /// The newest record, as far as is known.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Records that the firmware would not start what was chosen; [`next`](Self::next) goes on.
    pub fn failed_to_start<P: Platform>(
        &mut self,
        platform: &mut P,
        target: Target,
        reason: impl Into<String>,
    ) {
        self.reject(platform, target, EventKind::START_FAILED, reason.into());
    }

    /// The next thing to start; none when everything was tried. Then only a reset can help.
    pub fn next<P: Platform>(&mut self, platform: &mut P) -> Option<Chosen<P::Image>> {
        if self.phase == Phase::Begin {
            self.begin(platform);
            self.phase = Phase::Candidates;
        }
        loop {
            let Some(candidate) = self.next_candidate(platform) else {
                platform.log(format_args!("nothing on this disk can be started"));
                return None;
            };
            if let Some(chosen) = self.attempt(platform, candidate) {
                return Some(chosen);
            }
        }
    }

    fn next_candidate<P: Platform>(&mut self, platform: &mut P) -> Option<Candidate> {
        if self.phase == Phase::Candidates {
            if let Some(candidate) = self.pop_candidate() {
                return Some(candidate);
            }
            if !self.below_floor.is_empty() && self.drop_implausible_floor(platform) {
                let again = core::mem::take(&mut self.below_floor);
                self.excluded.retain(|target| !again.contains(target));
                self.queue = self.record.iter().flat_map(Selector::new).collect();
                if let Some(candidate) = self.pop_candidate() {
                    return Some(candidate);
                }
            }
            self.phase = Phase::LastResort;
            let text = "nothing that the record allows can be started";
            platform.log(format_args!(
                "{text}; last resort: A, B and recovery in turn"
            ));
            self.event(
                platform,
                Event::new(Stage::LOADER, EventKind::LAST_RESORT, text),
            );
            if !self.writable {
                // Nothing can be remembered, so chance takes the place of the last slot tried.
                let first = self
                    .nonce
                    .0
                    .first()
                    .copied()
                    .unwrap_or(0)
                    .checked_rem(3)
                    .unwrap_or(0);
                self.round = select::round(Target::from_code(first));
            }
        }
        let target = self
            .round
            .into_iter()
            .find(|target| !self.excluded.contains(target))?;
        Some(Candidate {
            target,
            why: Why::LastResort,
        })
    }

    fn pop_candidate(&mut self) -> Option<Candidate> {
        while let Some(candidate) = self.queue.pop_front() {
            if !self.excluded.contains(&candidate.target) {
                return Some(candidate);
            }
        }
        None
    }

    /// Reads the record, or makes one, and lines up its candidates.
    fn begin<P: Platform>(&mut self, platform: &mut P) {
        self.nonce = platform.nonce();
        let floors = platform.firmware_floors();
        self.firmware = floors.unwrap_or_default();
        match platform.boot_state() {
            Some(device) => {
                let loaded = BootState::new(device).load();
                let [first, second] = &loaded.copies;
                platform.log(format_args!("boot-state: copy 0 {first}; copy 1 {second}"));
                self.record = loaded.record;
            }
            None => {
                platform.log(format_args!("boot-state: the partition is missing"));
                self.writable = false;
            }
        }
        self.round = select::round(self.record.as_ref().and_then(|record| record.last_tried));
        if self.record.is_none() {
            self.rebuild(platform);
        }
        if floors.is_some() {
            self.raise_firmware_floors(platform);
        }
        if self.floor_looks_implausible() {
            self.drop_implausible_floor(platform);
        }
        self.queue = self.record.iter().flat_map(Selector::new).collect();
        if !self.writable {
            self.queue_good_slots();
        }
    }

    /// Rule 6: no valid copy.
    fn rebuild<P: Platform>(&mut self, platform: &mut P) {
        let [a, b] =
            Slot::BOTH.map(
                |slot| match self.check(platform, slot.into(), self.firmware.system) {
                    Ok((verified, _)) => Some(verified.manifest.slot_contents(verified.digest)),
                    Err(reason) => {
                        platform.log(format_args!("{}: {reason}", Target::from(slot)));
                        None
                    }
                },
            );
        let name = |contents: Option<SlotContents>| {
            contents.map_or_else(
                || "nothing that verifies".into(),
                |it| it.version.to_string(),
            )
        };
        let text = format!("no valid record; found A: {}, B: {}", name(a), name(b));
        platform.log(format_args!("boot-state: {text}; writing a new one"));
        self.rebuilt = true;
        let record = transition::rebuild(a, b);
        if self.commit(platform, record) {
            self.event(
                platform,
                Event::new(Stage::LOADER, EventKind::RECORD_REBUILT, text),
            );
        }
    }

    /// Commit, then verify; the chosen one, or what is wrong with it recorded.
    fn attempt<P: Platform>(
        &mut self,
        platform: &mut P,
        candidate: Candidate,
    ) -> Option<Chosen<P::Image>> {
        let Candidate { target, why } = candidate;
        let mut recorded = false;
        if self.writable
            && let Some(record) = &self.record
        {
            let next = match why {
                Why::LastResort => Ok(transition::last_resort(record, target, self.nonce)),
                _ => transition::start(record, target, self.nonce),
            };
            match next {
                Ok(next) => recorded = self.commit(platform, next),
                Err(refused) => {
                    self.reject(platform, target, EventKind::REJECTED, refused.to_string());
                    return None;
                }
            }
            if !recorded {
                if self.phase == Phase::Candidates {
                    self.queue_good_slots();
                    return None;
                }
            }
        }
        let floor = match target {
            Target::Recovery => self.firmware.recovery,
            _ => self.floor(),
        };
        let checked = self
            .check(platform, target, floor)
            .and_then(|(verified, image)| {
                self.check_recorded(candidate, verified.digest)
                    .map(|()| (verified, image))
            });
        match checked {
            Ok((verified, image)) => {
                let why = if self.rebuilt && why == Why::Priority {
                    Why::Rebuilt
                } else {
                    why
                };
                let manifest = &verified.manifest;
                platform.log(format_args!(
                    "{target}: version {}, security version {}, verified ({why})",
                    manifest.version, manifest.security_version
                ));
                let nonce = self
                    .record
                    .as_ref()
                    .map_or(Nonce::ZERO, |record| record.nonce);
                Some(Chosen {
                    target,
                    why,
                    image,
                    verified,
                    nonce,
                    recorded,
                })
            }
            Err(reason) => {
                if matches!(reason, Rejected::BelowFloor { .. }) {
                    self.below_floor.push(target);
                }
                self.reject(platform, target, EventKind::REJECTED, reason.to_string());
                None
            }
        }
    }

    /// The counters that let a slot start are about one image; another one has not earned them.
    fn check_recorded(&self, candidate: Candidate, found: Digest) -> Result<(), Rejected> {
        let recorded = self.record.as_ref().zip(candidate.target.slot());
        match recorded.map(|(record, slot)| record.slot(slot).digest) {
            Some(digest) if candidate.why != Why::LastResort && digest != found => {
                Err(Rejected::NotRecorded { found })
            }
            _ => Ok(()),
        }
    }

    /// Verifies a slot and loads its UKI.
    fn check<P: Platform>(
        &self,
        platform: &mut P,
        target: Target,
        floor: SecurityVersion,
    ) -> Result<(Verified, P::Image), Rejected> {
        let (header, verified) = self.check_manifest(platform, target, floor)?;
        let size = verified.manifest.uki.size;
        let (image, digest) = platform
            .load_uki(target, header.uki_offset, size)
            .map_err(Rejected::Unreadable)?;
        verified.check_uki(&digest)?;
        Ok((verified, image))
    }

    fn check_manifest<P: Platform>(
        &self,
        platform: &mut P,
        target: Target,
        floor: SecurityVersion,
    ) -> Result<(SlotHeader, Verified), Rejected> {
        let device = platform.slot(target).ok_or(Rejected::NoPartition)?;
        let parts = read_slot(device).map_err(|error| match error {
            ReadSlotError::Header(error) => Rejected::Header(error),
            ReadSlotError::Device(error) => Rejected::Unreadable(error.to_string()),
        })?;
        let expect = Expect {
            target,
            floor,
            uki: None,
        };
        let verified = platform.verify(
            self.trust,
            &parts.header,
            &parts.envelope,
            &parts.keyring,
            &expect,
        )?;
        Ok((parts.header, verified))
    }

    /// Whether `record` is on the disk now. If not, nothing more is written in this start.
    fn commit<P: Platform>(&mut self, platform: &mut P, record: Record) -> bool {
        let Some(device) = platform.boot_state() else {
            self.writable = false;
            return false;
        };
        let mut store = BootState::new(device);
        match store.commit(&record) {
            Ok(written) => {
                self.record = Some(written);
                true
            }
            Err(error) => {
                let error = error.to_string();
                // What is on the disk decides which nonce the initrd will find there.
                self.record = store.load().record.or_else(|| self.record.take());
                self.writable = false;
                platform.log(format_args!(
                    "boot-state: {error}; only a good slot may start"
                ));
                let event = Event::new(Stage::LOADER, EventKind::RECORD_NOT_WRITTEN, error);
                self.event(platform, event);
                false
            }
        }
    }

    /// The end of rule 2: nothing can be written, so only good slots, and now and then not the
    /// preferred one, so that a bad one is not started for ever.
    fn queue_good_slots(&mut self) {
        let good = |record: &Record| {
            let candidates = Selector::new(&Record {
                one_shot: None,
                ..record.clone()
            });
            let targets = candidates.map(|candidate| candidate.target);
            let is_good = |target: &Target| {
                target
                    .slot()
                    .is_some_and(|slot| record.slot(slot).is_good())
            };
            targets.filter(is_good).collect::<Vec<_>>()
        };
        let mut targets = self.record.as_ref().map(good).unwrap_or_default();
        if self
            .nonce
            .0
            .first()
            .is_some_and(|byte| byte.is_multiple_of(4))
        {
            targets.reverse();
        }
        let unrecorded = |target| Candidate {
            target,
            why: Why::Unrecorded,
        };
        self.queue = targets.into_iter().map(unrecorded).collect();
    }

    fn floor(&self) -> SecurityVersion {
        let cached = self
            .record
            .as_ref()
            .map(|record| record.floor)
            .unwrap_or_default();
        cached.max(self.firmware.system)
    }

    /// By the record's own account: the floor is above everything that was ever installed.
    fn floor_looks_implausible(&self) -> bool {
        self.record.as_ref().is_some_and(|record| {
            let slots = Slot::BOTH.map(|slot| record.slot(slot).contents());
            let highest = slots
                .into_iter()
                .flatten()
                .map(|contents| contents.security_version)
                .max();
            record.floor > self.firmware.system
                && highest.is_some_and(|highest| record.floor > highest)
        })
    }

    /// Rule 9: a cached floor above every slot that verifies is damage. Returns whether it was, and has
    /// been replaced by the firmware's; the next commit writes that down.
    fn drop_implausible_floor<P: Platform>(&mut self, platform: &mut P) -> bool {
        let cached = self.floor();
        if cached <= self.firmware.system {
            return false;
        }
        let versions = Slot::BOTH.map(|slot| {
            let checked = self.check(platform, slot.into(), self.firmware.system);
            checked
                .ok()
                .map(|(verified, _)| verified.manifest.security_version)
        });
        let highest = versions.into_iter().flatten().max();
        let implausible = highest.is_some_and(|highest| highest < cached);
        if implausible && let Some(record) = &mut self.record {
            record.floor = self.firmware.system;
            let text = format!(
                "security floor {cached} is above every slot; using {}",
                record.floor
            );
            platform.log(format_args!("boot-state: {text}"));
            self.event(
                platform,
                Event::new(Stage::LOADER, EventKind::FLOOR_IMPLAUSIBLE, text),
            );
        }
        implausible
    }

    /// Carries the record's floors over to the firmware's, as far as what is good and verifies allows.
    fn raise_firmware_floors<P: Platform>(&mut self, platform: &mut P) {
        let Some(record) = self.record.clone() else {
            return;
        };
        let mut floors = self.firmware;
        if record.floor > floors.system {
            let good = Slot::BOTH
                .into_iter()
                .filter(|slot| record.slot(*slot).is_good());
            let verified = good.filter_map(|slot| {
                self.check_manifest(platform, slot.into(), self.firmware.system)
                    .ok()
            });
            let versions = verified.map(|(_, verified)| verified.manifest.security_version);
            let lowest = versions.min().unwrap_or_default();
            floors.system = floors.system.max(record.floor.min(lowest));
        }
        if record.recovery_floor > floors.recovery {
            let recovery = self.check_manifest(platform, Target::Recovery, self.firmware.recovery);
            let version = recovery.map(|(_, verified)| verified.manifest.security_version);
            let version = version.unwrap_or_default();
            floors.recovery = floors.recovery.max(record.recovery_floor.min(version));
        }
        if floors != self.firmware {
            match platform.raise_firmware_floors(floors) {
                Ok(()) => self.firmware = floors,
                Err(error) => platform.log(format_args!("firmware floor: {error}")),
            }
        }
    }

    fn reject<P: Platform>(
        &mut self,
        platform: &mut P,
        target: Target,
        kind: EventKind,
        reason: String,
    ) {
        platform.log(format_args!("{target}: not started: {reason}"));
        let mut event = Event::new(Stage::LOADER, kind, reason.clone()).about(target);
        if let (Some(record), Some(slot)) = (&self.record, target.slot()) {
            event.digest = record.slot(slot).digest;
        }
        self.event(platform, event);
        self.rejected.push(Rejection {
            slot: target,
            reason,
        });
        self.excluded.push(target);
    }

    /// Events are for people: one that cannot be written stops nothing.
    fn event<P: Platform>(&mut self, platform: &mut P, event: Event) {
        let time = platform.now().unwrap_or(0);
        let event = Event {
            time,
            nonce: self.nonce,
            ..event
        };
        let written = platform.boot_state().map(|device| {
            BootState::new(device)
                .append_event(&event)
                .map_err(|error| error.to_string())
        });
        if let Some(Err(error)) = written {
            platform.log(format_args!("event ring: {error}"));
        }
    }
}
