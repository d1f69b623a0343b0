//! The boot state as `bootctl` changes it, and what history says of that: over a partition in memory.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;

use boot_core::event::{Event, EventKind, Stage};
use boot_core::floor::Level;
use boot_core::record::{Record, SlotContents, SlotEntry, SlotStatus};
use boot_core::store::{BootState, COPIES, PARTITION_SIZE, QUARANTINE_RING};
use boot_core::test_support::{MemoryDevice, MemoryError};
use boot_core::transition::LONG_STREAK;
use boot_core::{Device, Digest, Nonce, SecurityVersion, Slot, Target};
use bootctl::boot::control::{Context, Control};
use bootctl::boot::verdict::{Booted, Settled, Verdict};
use bootctl::failure::Code;
use bootctl::os::lock::Lock;

const A: Digest = Digest([0xa; 32]);
const B: Digest = Digest([0xb; 32]);

/// A partition that two hold at once.
#[derive(Clone)]
struct Shared(Rc<RefCell<MemoryDevice>>);

impl Device for Shared {
    type Error = MemoryError;

    fn block_size(&self) -> u32 {
        self.0.borrow().block_size()
    }

    fn size(&self) -> u64 {
        self.0.borrow().size()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.0.borrow_mut().read_at(offset, buf)
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), MemoryError> {
        self.0.borrow_mut().write_at(offset, buf)
    }

    fn flush(&mut self) -> Result<(), MemoryError> {
        self.0.borrow_mut().flush()
    }
}

/// A machine's boot state, and the disk below it.
struct Appliance {
    device: Shared,
    control: Control<Shared>,
}

fn entry(number: u64, digest: Digest) -> SlotEntry {
    SlotEntry::of(SlotContents {
        version: format!("{number}.0").parse().unwrap(),
        level: Level::new(number, number),
        digest,
    })
}

/// Slot A is good and of security version 1, slot B on trial and of 2.
fn on_trial() -> Record {
    let mut record = Record::empty();
    (record.a, record.b) = (entry(1, A), entry(2, B));
    (record.a.successful, record.a.priority) = (true, 1);
    (record.b.tries, record.b.priority) = (2, 2);
    record
}

/// Both are good.
fn both_good() -> Record {
    let mut record = on_trial();
    (record.b.successful, record.b.tries) = (true, 0);
    record
}

/// Slot A is good, slot B is empty.
fn alone() -> Record {
    let mut record = both_good();
    record.b = SlotEntry::default();
    record
}

impl Appliance {
    fn new(booted: Target, record: &Record) -> Self {
        let device = MemoryDevice::new(PARTITION_SIZE, 512);
        let device = Shared(Rc::new(RefCell::new(device)));
        let mut store = BootState::new(device.clone());
        // Twice, so that both copies are valid.
        let written = store.commit(record).unwrap();
        store.commit(&written).unwrap();
        let context = Context {
            booted,
            nonce: Nonce([5; 16]),
            now: || 1_790_000_000,
        };
        let control = Control::new(device.clone(), context);
        Self { device, control }
    }

    fn record(&mut self) -> Record {
        self.control.record().unwrap()
    }

    fn status(&mut self, slot: Slot) -> SlotStatus {
        self.record().slot(slot).status()
    }

    fn events(&mut self) -> Vec<Event> {
        self.control.store().events().unwrap()
    }

    /// What history says: kind, slot, text.
    fn history(&mut self) -> Vec<(&'static str, Option<Target>, String)> {
        let events = self.events();
        let told = events
            .into_iter()
            .map(|it| (it.kind.name(), it.slot, it.text));
        told.collect()
    }

    /// Looks that this is the last that history says.
    fn said(&mut self, kind: &str, slot: Slot, text: &str) {
        let (found, about, said) = self.history().pop().unwrap();
        let expected = (kind, Some(slot.into()), text);
        assert_eq!((found, about, said.as_str()), expected);
    }

    fn is_quarantined(&mut self, digest: &Digest) -> bool {
        self.control.quarantine_entry(digest).unwrap().is_some()
    }

    fn destroy(&mut self, copy: usize) {
        self.device.write_at(COPIES[copy], &[0xff; 512]).unwrap();
    }

    fn commit_verdict(
        &mut self,
        booted: &Booted,
        verdict: &Verdict,
    ) -> bootctl::failure::Result<Settled> {
        self.control
            .commit_verdict(booted, verdict, "all well", |_| None)
    }
}

fn unhealthy() -> Verdict {
    Verdict::Unhealthy("no network".to_owned())
}

/// What runs in slot B.
fn in_slot_b(on_trial: bool) -> Booted {
    Booted {
        slot: Slot::B,
        digest: Some(B),
        on_trial,
        root_damaged: false,
    }
}

#[test]
fn a_change_holds_the_lock_if_it_is_told_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bootctl.lock");
    let Appliance { control, .. } = Appliance::new(Target::A, &both_good());
    assert!(control.lock().unwrap().is_none());
    let control = control.locking(path.clone(), "test");
    let lock = control.lock().unwrap();
    assert!(lock.is_some() && Lock::is_held(&path));
}

#[test]
fn what_changes_nothing_is_not_written() {
    let mut appliance = Appliance::new(Target::B, &both_good());
    let before = appliance.record();
    let after = appliance.control.clear_streak(Slot::B).unwrap();
    assert_eq!(
        (after.sequence, appliance.record().sequence),
        (before.sequence, before.sequence)
    );
    appliance
        .control
        .change("test", |record| {
            let mut next = record.clone();
            next.b.failure_streak = 3;
            Ok(next)
        })
        .unwrap();
    let after = appliance.control.clear_streak(Slot::B).unwrap();
    assert_eq!(
        (after.b.failure_streak, after.sequence),
        (0, before.sequence + 2)
    );
}

#[test]
fn who_was_overtaken_is_told_to_try_again_and_who_cannot_write_to_look_at_the_disk() {
    let mut appliance = Appliance::new(Target::A, &both_good());
    let other = appliance.device.clone();
    let overtaken = appliance.control.change("test", |record| {
        BootState::new(other).commit(record).unwrap();
        boot_core::transition::set_one_shot(record, Some(Target::Recovery))
    });
    assert_eq!(
        overtaken.unwrap_err().next.unwrap(),
        "run the command again"
    );
    appliance.device.0.borrow_mut().read_only = true;
    let refused = appliance.control.one_shot(Target::Recovery).unwrap_err();
    assert!(refused.next.unwrap().contains("look at the disk"));
}

#[test]
fn a_refusal_says_what_to_do() {
    let next = |record: &Record, booted| {
        let mut appliance = Appliance::new(booted, record);
        let refused = appliance.control.change("test", |record| {
            let contents = SlotContents {
                version: "3.0".parse().unwrap(),
                level: Level::new(1, 1),
                digest: Digest([3; 32]),
            };
            boot_core::transition::clear(record, Slot::B, booted)
                .and_then(|it| boot_core::transition::stage(&it, Slot::B, contents, booted))
        });
        refused.unwrap_err()
    };
    let mut record = both_good();
    record.floors.system.security_version = SecurityVersion(2);
    let below = next(&record, Target::A);
    assert_eq!(below.code, Code::Refused);
    assert!(below.next.unwrap().contains("install a newer one"));
    record.floors.system = Level::new(1, 2);
    let withdrawn = next(&record, Target::A);
    assert!(
        withdrawn
            .what
            .contains("keyring has serial 1, below the floor 2")
    );
    assert!(withdrawn.next.unwrap().contains("under the newer keyring"));
    record.a.successful = false;
    let nothing_else = next(&record, Target::Recovery);
    assert!(nothing_else.next.unwrap().contains("bootctl mark-good"));
    let mut appliance = Appliance::new(Target::A, &alone());
    let empty = appliance.control.activate(Slot::B).unwrap_err();
    assert!(empty.next.unwrap().contains("bootctl install"));
}

#[test]
fn an_event_says_who_when_and_of_what() {
    for (booted, stage) in [
        (Target::A, Stage::BOOTCTL),
        (Target::Recovery, Stage::RECOVERY),
    ] {
        let mut appliance = Appliance::new(booted, &both_good());
        appliance
            .control
            .event(EventKind::UNHEALTHY, Some(Target::B), B, "text");
        let expected = Event {
            slot: Some(Target::B),
            time: 1_790_000_000,
            nonce: Nonce([5; 16]),
            digest: B,
            ..Event::new(stage, EventKind::UNHEALTHY, "text")
        };
        assert_eq!(appliance.events(), [expected]);
    }
}

#[test]
fn a_slot_that_is_marked_good_raises_the_floor_and_leaves_quarantine_once() {
    let mut record = on_trial();
    record.a.security_version = SecurityVersion(2);
    let mut appliance = Appliance::new(Target::B, &record);
    appliance.control.quarantine(&B, "unhealthy").unwrap();
    for _ in 0..2 {
        let marked = appliance
            .control
            .mark_good(Slot::B, &B, "all well")
            .unwrap();
        assert_eq!(
            (marked.b.status(), marked.floors.system),
            (SlotStatus::Good, Level::new(2, 1))
        );
    }
    let expected = [
        ("marked-good", Some(Target::B), "version 2.0: all well"),
        ("floor-raised", None, "from 0 (keyring 0) to 2 (keyring 1)"),
        ("released", None, "released from quarantine"),
    ];
    let expected = expected.map(|(kind, slot, text)| (kind, slot, text.to_owned()));
    assert_eq!(appliance.history(), expected);
    assert!(!appliance.is_quarantined(&B));
}

#[test]
fn a_slot_that_is_given_up_goes_into_quarantine_unless_its_bytes_are_to_blame() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    appliance
        .control
        .give_up(Slot::B, &B, "no network")
        .unwrap();
    assert_eq!(appliance.status(Slot::B), SlotStatus::GivenUp);
    assert!(appliance.is_quarantined(&B));
    appliance.said("given-up", Slot::B, "no network");

    let mut appliance = Appliance::new(Target::A, &both_good());
    appliance
        .control
        .give_up_damaged(Slot::B, "block 3")
        .unwrap();
    assert_eq!(appliance.status(Slot::B), SlotStatus::GivenUp);
    assert!(!appliance.is_quarantined(&B));
    appliance.said("given-up", Slot::B, "damaged: block 3");
}

#[test]
fn a_slot_is_given_up_even_where_the_quarantine_cannot_be_written() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    appliance.device.0.borrow_mut().bad_writes = Some(QUARANTINE_RING..PARTITION_SIZE);
    appliance
        .control
        .give_up(Slot::B, &B, "no network")
        .unwrap();
    assert_eq!(appliance.status(Slot::B), SlotStatus::GivenUp);
    assert!(!appliance.is_quarantined(&B));
    appliance.said("given-up", Slot::B, "no network");
}

#[test]
fn a_record_is_writable_if_both_of_its_copies_are() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    let before = appliance.control.record().unwrap();
    appliance.control.prove_writable("looking").unwrap();
    let after = appliance.control.record().unwrap();
    assert_eq!((&after.a, &after.b), (&before.a, &before.b));
    for copy in COPIES {
        appliance.device.0.borrow_mut().bad_writes = Some(copy..copy + 512);
        appliance.control.prove_writable("looking").unwrap_err();
    }
}

#[test]
fn going_back_and_starting_once_are_said() {
    let mut appliance = Appliance::new(Target::B, &both_good());
    let record = appliance.control.rollback(Slot::B, "cameras lost").unwrap();
    assert!(record.a.priority > record.b.priority);
    appliance.said("rolled-back", Slot::A, "to version 1.0: cameras lost");
    let record = appliance.control.one_shot(Target::A).unwrap();
    assert_eq!(record.one_shot, Some(Target::A));
    appliance.said("one-shot", Slot::A, "by an operator");
    let record = appliance.control.activate(Slot::A).unwrap_err();
    assert_eq!(record.code, Code::Refused, "good already");
}

#[test]
fn a_verdict_that_was_cut_off_is_unfinished() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    assert_eq!(appliance.control.unfinished(Slot::B).unwrap(), None);
    appliance.control.quarantine(&B, "no network").unwrap();
    let entry = appliance.control.unfinished(Slot::B).unwrap().unwrap();
    assert_eq!((entry.digest, entry.reason.as_str()), (B, "no network"));
    let begun = appliance.control.begin(Slot::B).unwrap();
    assert_eq!(begun.unfinished.unwrap().as_deref(), Some("no network"));

    let mut appliance = Appliance::new(Target::B, &both_good());
    appliance.control.quarantine(&B, "no network").unwrap();
    assert_eq!(
        appliance.control.unfinished(Slot::B).unwrap(),
        None,
        "it is good"
    );
    let mut appliance = Appliance::new(Target::A, &alone());
    appliance
        .control
        .quarantine(&Digest::ZERO, "nothing")
        .unwrap();
    assert_eq!(
        appliance.control.unfinished(Slot::B).unwrap(),
        None,
        "it is empty"
    );
}

#[test]
fn starts_without_a_word_are_noted_once() {
    let mut unproven = on_trial();
    unproven.b.tries = 0;
    let mut never_up = both_good();
    never_up.b.failure_streak = LONG_STREAK;
    let streak =
        format!("version 2.0: {LONG_STREAK} starts in a row ended before its userland was up");
    let cases = [
        (
            unproven,
            EventKind::UNPROVEN,
            "version 2.0: no start ended in a verdict",
            EventKind::ACTIVATED,
        ),
        (
            never_up,
            EventKind::NEVER_UP,
            &streak,
            EventKind::UNCLEAN_SHUTDOWN,
        ),
    ];
    for (record, kind, text, before) in cases {
        let mut appliance = Appliance::new(Target::A, &record);
        // What was said of the other slot, and of another image in this one, is not about this.
        appliance.control.event(kind, Some(Target::A), B, text);
        appliance.control.event(kind, Some(Target::B), A, text);
        assert!(appliance.control.note_silent(Slot::B).unwrap());
        appliance.said(kind.name(), Slot::B, text);
        appliance
            .control
            .event(EventKind::STAGED, Some(Target::B), B, "something else");
        assert!(!appliance.control.note_silent(Slot::B).unwrap());
        appliance
            .control
            .event(before, Some(Target::B), B, "once more");
        assert!(appliance.control.note_silent(Slot::B).unwrap());
        appliance
            .control
            .event(kind, Some(Target::B), B, "another number");
        assert!(appliance.control.note_silent(Slot::B).unwrap());
        let begun = appliance.control.begin(Slot::A).unwrap();
        assert!(!begun.other_silent && !begun.on_trial);
    }
}

#[test]
fn slots_that_have_said_their_word_are_not_noted() {
    let mut short_streak = both_good();
    short_streak.b.failure_streak = LONG_STREAK - 1;
    for record in [on_trial(), both_good(), short_streak] {
        let mut appliance = Appliance::new(Target::A, &record);
        assert!(!appliance.control.note_silent(Slot::B).unwrap());
        assert_eq!(appliance.history(), []);
    }
}

#[test]
fn recovery_finds_both_silent_slots() {
    let mut record = both_good();
    record.a.failure_streak = LONG_STREAK;
    record.b.failure_streak = LONG_STREAK;
    let mut appliance = Appliance::new(Target::Recovery, &record);
    appliance.destroy(0);
    assert_eq!(appliance.control.begin_recovery().unwrap(), Slot::BOTH);
    assert_eq!(appliance.control.begin_recovery().unwrap(), []);
    assert!(
        appliance
            .control
            .load()
            .copies
            .iter()
            .all(|it| it.to_string().starts_with("valid"))
    );
}

#[test]
fn a_root_that_rotted_ends_a_slot_only_beside_a_good_one_that_runs() {
    let mut a_on_trial = both_good();
    a_on_trial.a.successful = false;
    a_on_trial.a.tries = 1;
    let cases = [
        (both_good(), Target::A, SlotStatus::GivenUp),
        (both_good(), Target::Recovery, SlotStatus::Good),
        (a_on_trial, Target::A, SlotStatus::Good),
    ];
    for (record, booted, expected) in cases {
        let mut appliance = Appliance::new(booted, &record);
        appliance.control.root_lost(Slot::B, "block 3").unwrap();
        assert_eq!(appliance.status(Slot::B), expected, "{booted}");
        let first = appliance.history().remove(0);
        assert_eq!(
            first,
            ("root-corrupt", Some(Target::B), "block 3".to_owned())
        );
    }
}

#[test]
fn a_damaged_copy_is_written_again_and_said() {
    let mut appliance = Appliance::new(Target::A, &both_good());
    assert!(!appliance.control.repair().unwrap());
    assert_eq!(appliance.history(), []);
    appliance.destroy(0);
    assert!(appliance.control.repair().unwrap());
    assert_eq!(appliance.history()[0].0, "copy-repaired");
    assert!(!appliance.control.repair().unwrap(), "both are valid");
}

#[test]
fn a_healthy_slot_is_marked_good_if_it_is_the_one_that_the_record_means() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    assert!(appliance.control.begin(Slot::B).unwrap().on_trial);
    let other = Booted {
        digest: Some(A),
        ..in_slot_b(true)
    };
    let refused = appliance
        .commit_verdict(&other, &Verdict::Healthy)
        .unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert_eq!(appliance.status(Slot::B), SlotStatus::Trial);
    assert_eq!(
        appliance
            .commit_verdict(&in_slot_b(true), &Verdict::Healthy)
            .unwrap(),
        Settled::Healthy
    );
    assert_eq!(appliance.status(Slot::B), SlotStatus::Good);
    let said = appliance.history().len();
    assert_eq!(
        appliance
            .commit_verdict(&in_slot_b(false), &Verdict::Healthy)
            .unwrap(),
        Settled::Healthy
    );
    assert_eq!(appliance.history().len(), said);
}

#[test]
fn a_good_slot_that_is_not_well_is_noted_and_given_up_only_if_its_root_is_damaged() {
    let mut appliance = Appliance::new(Target::B, &both_good());
    assert_eq!(
        appliance
            .commit_verdict(&in_slot_b(false), &unhealthy())
            .unwrap(),
        Settled::Noted
    );
    assert_eq!(appliance.status(Slot::B), SlotStatus::Good);
    appliance.said("unhealthy", Slot::B, "no network");
    let damaged = Booted {
        root_damaged: true,
        ..in_slot_b(false)
    };
    assert_eq!(
        appliance.commit_verdict(&damaged, &unhealthy()).unwrap(),
        Settled::GoingBack
    );
    assert_eq!(appliance.status(Slot::B), SlotStatus::GivenUp);
    assert!(!appliance.is_quarantined(&B));
}

#[test]
fn an_unhealthy_slot_on_trial_is_given_up_unless_it_has_to_stay() {
    let mut appliance = Appliance::new(Target::B, &on_trial());
    let stays = appliance
        .control
        .commit_verdict(&in_slot_b(true), &unhealthy(), "", |_| Some("alone".into()));
    assert_eq!(stays.unwrap(), Settled::Stays("alone".into()));
    assert_eq!(appliance.status(Slot::B), SlotStatus::Trial);
    appliance.said("degraded", Slot::B, "no network; stays up: alone");
    assert_eq!(
        appliance
            .commit_verdict(&in_slot_b(true), &unhealthy())
            .unwrap(),
        Settled::GoingBack
    );
    assert_eq!(appliance.status(Slot::B), SlotStatus::GivenUp);
    assert!(appliance.is_quarantined(&B));
}

#[test]
fn without_a_record_a_verdict_against_a_slot_on_trial_is_kept_for_the_next_one() {
    for (booted, verdict, kept) in [
        (in_slot_b(true), unhealthy(), true),
        (in_slot_b(true), Verdict::Healthy, false),
        (in_slot_b(false), unhealthy(), false),
    ] {
        let mut appliance = Appliance::new(Target::B, &on_trial());
        appliance.destroy(0);
        appliance.destroy(1);
        let settled = appliance.commit_verdict(&booted, &verdict);
        assert_eq!(settled.is_ok_and(|it| it == Settled::GoingBack), kept);
        assert_eq!(appliance.is_quarantined(&B), kept);
    }
}
