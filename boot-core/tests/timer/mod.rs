//! Which starts the loader's hardware timer may watch: whatever the timer does, the machine comes up, and a kernel that
//! hangs is left.

use boot_core::{
    Slot, Target,
    boot::Chosen,
    record::Record,
    select::{Candidate, Why, may_arm_timer},
    test_support::{Machine, trust},
    transition::{self, TRIES},
};
use proptest::prelude::*;

use crate::support::{self, Disk, disk, good, machine, record, trial};

/// More starts than a record can ask for before something is started without the timer.
const STARTS: usize = 32;

/// Starts a machine whose timer fires before the agent runs, wherever `armed` says that it is armed; what comes up.
fn comes_up_though_the_timer_fires(
    machine: &mut Machine,
    armed: impl Fn(&Chosen<Vec<u8>>) -> bool,
) -> Option<Target> {
    let starts = core::iter::repeat_with(|| machine.start(&trust())).take(STARTS);
    let mut unwatched = starts.flatten().filter(|chosen| !armed(chosen));
    unwatched.next().map(|chosen| chosen.target)
}

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn a_timer_that_always_fires_keeps_no_machine_from_coming_up(
        disk in disk(), record in prop::option::of(record()), read_only in any::<bool>(),
    ) {
        let mut machine = machine(&disk, record.as_ref());
        machine.boot_state.as_mut().unwrap().read_only = read_only;
        let up = comes_up_though_the_timer_fires(&mut machine, |chosen| chosen.may_arm_timer);
        prop_assert_eq!(up.is_some(), !disk.startable(0).is_empty());
    }

    #[test]
    fn with_a_slot_that_is_whole_and_may_start_it_is_a_slot_that_comes_up(
        statuses in prop::array::uniform2(0_u8..=3), streaks in prop::array::uniform2(0_u16..4),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        for (slot, (status, streak)) in Slot::BOTH.into_iter().zip(statuses.into_iter().zip(streaks)) {
            *record.slot_mut(slot) = match status {
                0 => good(disk.contents(slot), 1),
                tries => trial(disk.contents(slot), 2, tries),
            };
            record.slot_mut(slot).failure_streak = streak;
        }
        let mut machine = machine(&disk, Some(&record));
        let up = comes_up_though_the_timer_fires(&mut machine, |chosen| chosen.may_arm_timer);
        prop_assert!(up.unwrap().slot().is_some(), "{up:?}");
    }

    #[test]
    fn a_version_on_trial_whose_kernel_hangs_is_left_by_the_timer_alone(
        slot in prop::sample::select(&Slot::BOTH[..]), streak in any::<u16>(),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        *record.slot_mut(slot.other()) = good(disk.contents(slot.other()), 1);
        record.slot_mut(slot.other()).failure_streak = streak;
        *record.slot_mut(slot) = trial(disk.contents(slot), 2, TRIES);
        let mut machine = machine(&disk, Some(&record));
        for _ in 0..TRIES {
            let chosen = machine.start(&trust()).unwrap();
            prop_assert!(chosen.target == slot.into() && chosen.may_arm_timer, "it would stand still");
        }
        prop_assert_ne!(machine.start(&trust()).unwrap().target, Target::from(slot));
    }

    #[test]
    fn where_nothing_counts_no_timer_is_armed(
        disk in disk(), record in record(), read_only in any::<bool>(), missing in any::<bool>(),
    ) {
        let mut machine = machine(&disk, Some(&record));
        if missing {
            machine.boot_state = None;
        } else {
            machine.boot_state.as_mut().unwrap().read_only = read_only;
        }
        let Some(chosen) = machine.start(&trust()) else { return Ok(()) };
        if chosen.target == Target::Recovery || chosen.why == Why::Uncounted || !chosen.recorded {
            prop_assert!(!chosen.may_arm_timer, "{chosen:?}");
        }
    }
}

/// What the loader did: armed wherever the machine and the image allow it.
#[test]
fn a_timer_that_is_armed_at_every_start_and_always_fires_lets_nothing_come_up() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    for slot in Slot::BOTH {
        *record.slot_mut(slot) = good(disk.contents(slot), 1);
    }
    let mut machine = machine(&disk, Some(&record));
    assert_eq!(
        comes_up_though_the_timer_fires(&mut machine, |_| true),
        None
    );
}

#[test]
fn a_good_slot_has_its_second_start_without_the_timer() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.a = good(disk.contents(Slot::A), 1);
    let mut machine = machine(&disk, Some(&record));
    let mut armed = || machine.start(&trust()).unwrap().may_arm_timer;
    assert_eq!([armed(), armed(), armed()], [true, false, false]);
    machine.update(|record| transition::clear_streak(record, Slot::A));
    assert!(machine.start(&trust()).unwrap().may_arm_timer, "it came up");
}

#[test]
fn a_slot_on_trial_alone_has_its_last_starts_without_the_timer() {
    let disk = Disk::sound();
    let armed = |tries, beside: bool| {
        let mut record = Record::empty();
        record.a = trial(disk.contents(Slot::A), 2, tries);
        if beside {
            record.b = good(disk.contents(Slot::B), 1);
        }
        let (target, why) = (Target::A, Why::Priority);
        may_arm_timer(&record, Candidate { target, why })
    };
    assert_eq!(
        [0, 1, 2, 3].map(|left| armed(left, false)),
        [false, false, true, true]
    );
    assert_eq!([0, 1, 2, 3].map(|left| armed(left, true)), [true; 4]);
}
