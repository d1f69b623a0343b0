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
//!    │some verify, but hold another image than the record says, or it says none: one try each, once (rule 6)
//! last resort: A, B, recovery in turn, no counter changes (rule 8)
//! ```

mod floor;
mod platform;
pub mod variable;

use alloc::{
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    event::{Event, EventKind, Stage},
    floor::Level,
    hand_over::Rejection,
    record::{Record, SlotContents},
    select::{self, Candidate, Selector, Why},
    slot::{Slot, Target},
    slot_header::SlotHeader,
    store::BootState,
    text, transition,
    types::Nonce,
    verify::{self, Expect, Rejected, Verified, Verify},
};

use floor::Firmware;
pub use platform::{Chosen, Platform};

/// One start of the machine.
#[derive(Debug)]
pub struct Boot<'t, V> {
    trust: &'t V,
    phase: Phase,
    /// The newest record, as far as is known.
    record: Option<Record>,
    /// Whether the record was lost and made anew in this start.
    rebuilt: bool,
    /// Whether commits still work.
    writable: bool,
    /// The nonce for this start's commits.
    nonce: Nonce,
    firmware: Firmware,
    queue: VecDeque<Candidate>,
    /// The last resort's order, decided by what the *start before* this one tried last.
    round: [Target; 3],
    rejected: Vec<Rejection>,
    /// Not tried again in this start.
    excluded: Vec<Target>,
    below_floor: Vec<Target>,
    /// Excluded by what the record says of them, which the last resort does not ask.
    by_record: Vec<Target>,
    /// Slots that verify, and whose counters are about another image.
    unrecorded: Vec<(Slot, SlotContents)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    Candidates,
    LastResort,
}

impl<'t, V: Verify> Boot<'t, V> {
    /// A start, for the images that `trust` allows.
    pub fn new(trust: &'t V) -> Self {
        Self {
            trust,
            phase: Phase::Begin,
            record: None,
            rebuilt: false,
            writable: true,
            nonce: Nonce::ZERO,
            firmware: Firmware::default(),
            queue: VecDeque::new(),
            round: Target::ALL,
            rejected: Vec::new(),
            excluded: Vec::new(),
            below_floor: Vec::new(),
            by_record: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    /// What was tried so far and not started, for the hand-over.
    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
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

    /// Writes down what went wrong with `target` and keeps nothing from starting.
    pub fn note<P: Platform>(
        &mut self,
        platform: &mut P,
        target: Target,
        kind: EventKind,
        text: &str,
    ) {
        platform.log(format_args!("{target}: {text}"));
        let event = Event::new(Stage::LOADER, kind, text).about(target);
        self.event(platform, event);
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
            if self.reconsider_floor(platform) {
                self.fill_queue();
                if let Some(candidate) = self.pop_candidate() {
                    return Some(candidate);
                }
            }
            if self.adopt(platform) {
                self.fill_queue();
                if let Some(candidate) = self.pop_candidate() {
                    return Some(candidate);
                }
            }
            self.phase = Phase::LastResort;
            let again = core::mem::take(&mut self.by_record);
            self.excluded.retain(|target| !again.contains(target));
            let text = "nothing that the record allows can be started";
            platform.log(format_args!(
                "{text}; last resort: A, B and recovery in turn"
            ));
            self.event(
                platform,
                Event::new(Stage::LOADER, EventKind::LAST_RESORT, text),
            );
            if !self.writable {
                self.go_round_by_chance();
            }
        }
        self.reconsider_floor(platform);
        let why = Why::Uncounted;
        let mut target = self.next_in_round();
        if target.is_none() && self.give_way(platform) {
            target = self.next_in_round();
        }
        target.map(|target| Candidate { target, why })
    }

    /// Rule 6, for a record that is valid and about other images than the disk holds, as one is that was restored from
    /// an older copy, or that an installation could not finish: as good as lost for these slots. Without it the last
    /// resort would go round for ever, because userland judges only what the record is about. Whether some slot may
    /// try again.
    fn adopt<P: Platform>(&mut self, platform: &mut P) -> bool {
        let mut found = core::mem::take(&mut self.unrecorded);
        let Some(record) = self.record.clone().filter(|_| self.writable) else {
            return false;
        };
        found.extend(self.unmentioned(platform, &record));
        if found.is_empty() {
            return false;
        }
        let adopt = |record: Record, (slot, contents): &(Slot, SlotContents)| {
            transition::adopt(&record, *slot, *contents)
        };
        let next = found.iter().fold(record, adopt);
        if !self.commit(platform, next) {
            return false;
        }
        self.rebuilt = true;
        for (slot, contents) in found {
            let target = Target::from(slot);
            self.excluded.retain(|excluded| *excluded != target);
            self.by_record.retain(|excluded| *excluded != target);
            let text = format!(
                "the record did not know of version {} here; it gets one try",
                contents.version
            );
            platform.log(format_args!("{target}: {text}"));
            let mut event = Event::new(Stage::LOADER, EventKind::RECORD_REBUILT, text);
            event.digest = contents.digest;
            self.event(platform, event.about(target));
        }
        true
    }

    /// Slots that verify and are empty by the record: the power went between the header and the commit that stages.
    fn unmentioned<P: Platform>(
        &self,
        platform: &mut P,
        record: &Record,
    ) -> Vec<(Slot, SlotContents)> {
        Slot::BOTH
            .into_iter()
            .filter(|slot| record.slot(*slot).contents().is_none())
            .filter_map(|slot| {
                Some((
                    slot,
                    self.contents(platform, slot, self.floors().system).ok()?,
                ))
            })
            .collect()
    }

    /// What a slot holds that verifies, its UKI included.
    fn contents<P: Platform>(
        &self,
        platform: &mut P,
        slot: Slot,
        floor: Level,
    ) -> Result<SlotContents, Rejected> {
        let (verified, _) = self.check(platform, slot.into(), floor)?;
        Ok(verified.slot_contents())
    }

    /// Nothing can be remembered, so chance takes the place of the last slot tried.
    fn go_round_by_chance(&mut self) {
        let chance = self.nonce.0.first().and_then(|byte| byte.checked_rem(3));
        self.round = select::round(chance.and_then(Target::from_code));
    }

    fn next_in_round(&self) -> Option<Target> {
        self.round
            .into_iter()
            .find(|target| !self.excluded.contains(target))
    }

    /// If something was below the floor, and the floor turns out to be damage: lets it try again.
    fn reconsider_floor<P: Platform>(&mut self, platform: &mut P) -> bool {
        let dropped = !self.below_floor.is_empty() && self.drop_implausible_floor(platform);
        if dropped {
            let again = core::mem::take(&mut self.below_floor);
            self.excluded.retain(|target| !again.contains(target));
        }
        dropped
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
        self.read_firmware_floors(platform);
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
        if self.record.is_none() && self.writable {
            self.rebuild(platform);
        }
        self.write_firmware_floors(platform);
        if self.floor_looks_implausible() {
            self.drop_implausible_floor(platform);
        }
        self.fill_queue();
    }

    /// Rule 6: no valid copy.
    fn rebuild<P: Platform>(&mut self, platform: &mut P) {
        let [a, b] = Slot::BOTH.map(|slot| {
            self.contents(platform, slot, self.firmware.floors.system)
                .inspect_err(|reason| {
                    platform.log(format_args!("{}: {reason}", Target::from(slot)))
                })
                .ok()
        });
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
                Why::Uncounted => Ok(transition::start_uncounted(record, target, self.nonce)),
                _ => transition::start(record, target, self.nonce),
            };
            match next {
                Ok(next) => recorded = self.commit(platform, next),
                Err(refused) => {
                    self.by_record.push(target);
                    self.reject(platform, target, EventKind::REJECTED, refused.to_string());
                    return None;
                }
            }
            if !recorded {
                // Chosen anew, by what holds where nothing can be written.
                match self.phase {
                    Phase::LastResort => self.go_round_by_chance(),
                    Phase::Begin | Phase::Candidates => self.fill_queue(),
                }
                return None;
            }
        }
        let floor = self.floors().of(target);
        let checked = self
            .check(platform, target, floor)
            .and_then(|(verified, image)| {
                self.check_recorded(candidate, &verified)
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
                let counted = self.record.as_ref().filter(|_| recorded);
                Some(Chosen {
                    target,
                    why,
                    image,
                    verified,
                    nonce,
                    recorded,
                    may_arm_timer: counted
                        .is_some_and(|record| select::may_arm_timer(record, candidate)),
                })
            }
            Err(reason) => {
                match reason {
                    Rejected::NotAdmitted(_) => self.below_floor.push(target),
                    Rejected::NotRecorded { .. } => self.by_record.push(target),
                    _ => {}
                }
                self.reject(platform, target, EventKind::REJECTED, reason.to_string());
                None
            }
        }
    }

    /// The counters that let a slot start are about one image; another one has not earned them.
    fn check_recorded(
        &mut self,
        candidate: Candidate,
        verified: &Verified,
    ) -> Result<(), Rejected> {
        let (Some(record), Some(slot)) = (&self.record, candidate.target.slot()) else {
            return Ok(());
        };
        if candidate.why == Why::Uncounted {
            return Ok(());
        }
        verified
            .check_recorded(candidate.target, record)
            .inspect_err(|_| {
                self.unrecorded.push((slot, verified.slot_contents()));
            })
    }

    /// Verifies a slot and loads its UKI.
    fn check<P: Platform>(
        &self,
        platform: &mut P,
        target: Target,
        floor: Level,
    ) -> Result<(Verified, P::Image), Rejected> {
        let (header, verified) = self.check_manifest(platform, target, floor)?;
        let size = verified.manifest.uki()?.size;
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
        floor: Level,
    ) -> Result<(SlotHeader, Verified), Rejected> {
        let slot = platform.slot(target).ok_or(Rejected::NoPartition)?;
        verify::check_manifest(slot, self.trust, &Expect { target, floor })
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
                    "boot-state: {error}; only a good slot may start, except in the last resort"
                ));
                let event = Event::new(Stage::LOADER, EventKind::RECORD_NOT_WRITTEN, error);
                self.event(platform, event);
                false
            }
        }
    }

    /// Lines up what the record allows.
    fn fill_queue(&mut self) {
        self.queue = match &self.record {
            Some(record) if self.writable => Selector::new(record).collect(),
            Some(record) => unrecorded(record, &self.nonce),
            None => VecDeque::new(),
        };
    }

    fn reject<P: Platform>(
        &mut self,
        platform: &mut P,
        target: Target,
        kind: EventKind,
        reason: String,
    ) {
        let reason = text::shorten(&reason, REASON_MAX);
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

/// Most bytes of a reason. It may quote what nobody signed, and the hand-over has to fit into a variable.
const REASON_MAX: usize = 240;

/// The end of rule 2: nothing can be written, so only good slots, and chance takes the place of what cannot be
/// remembered. One time in four the preferred one is not the first, and one time in eight recovery comes before them, so
/// that a slot that never comes up is not started for ever, be it the only one.
fn unrecorded(record: &Record, nonce: &Nonce) -> VecDeque<Candidate> {
    let is_good = |slot: &Slot| record.slot(*slot).is_good();
    let candidates = Selector::new(&Record {
        one_shot: None,
        ..record.clone()
    });
    let mut targets: VecDeque<_> = candidates
        .filter_map(|it| it.target.slot())
        .filter(is_good)
        .map(Target::from)
        .collect();
    // Two dice: the lowest two bits, and the next three.
    let [chance, ..] = nonce.0;
    if chance & 0b11 == 0 {
        targets.make_contiguous().reverse();
    }
    // Where no slot is good, the last resort brings recovery soon enough.
    if chance & 0b11100 == 0 && !targets.is_empty() {
        targets.push_front(Target::Recovery);
    }
    let why = Why::Unrecorded;
    targets
        .into_iter()
        .map(|target| Candidate { target, why })
        .collect()
}
