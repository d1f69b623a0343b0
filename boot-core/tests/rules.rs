//! The nine rules of the boot-state record, each as properties over arbitrary records, disks and
//! histories.
#![allow(clippy::unwrap_used)]

mod support;
mod timer;

use boot_core::{
    Device as _, Nonce, SecurityVersion, Slot, Target,
    boot::Boot,
    device::WriteError,
    floor::Level,
    record::{Record, SlotStatus},
    select::{RECOVERY_STREAK, Selector, Why},
    store::{BootState, COPIES, CommitError},
    test_support::{Machine, trust},
    transition,
};
use proptest::prelude::*;
use support::{Disk, Health, contents, disk, good, machine, record, trial};

proptest! {
    #![proptest_config(support::config())]

    #[test]
    fn rule_1_a_commit_leaves_the_newest_copy_alone(
        copies in prop::array::uniform2(prop::option::of(record())),
        change in record(), block_size in support::block_size(), garbage in any::<u8>(),
    ) {
        let mut device = support::boot_state(block_size, &copies);
        let before = BootState::new(&mut device).load();
        let sequence = before.record.as_ref().map_or(change.sequence, |record| record.sequence);
        let mut after = device.clone();
        let written = BootState::new(&mut after).commit(&support::numbered(change, sequence)).unwrap();
        prop_assert_eq!(written.sequence, sequence + 1);
        prop_assert_eq!(BootState::new(&mut after).load().record, Some(written));
        prop_assert_eq!(after.flushes, 2, "before, for what is newest; after, for what is written");
        let [(offset, len)] = after.writes[..] else { panic!("{:?}", after.writes) };
        prop_assert_eq!(len, block_size as usize);
        if let Some(newest) = before.newest {
            prop_assert_ne!(offset, COPIES[newest]);
            device.write_at(offset, &vec![garbage; len]).unwrap();
            prop_assert_eq!(BootState::new(&mut device).load().record, before.record);
        }
    }

    #[test]
    fn rule_1_a_commit_is_believed_only_when_read_back(old in record(), new in record()) {
        let mut device = support::boot_state(512, &[Some(old.clone()), None]);
        device.stuck = Some(0..u64::MAX);
        let new = support::numbered(new, old.sequence);
        prop_assert_eq!(BootState::new(&mut device).commit(&new), Err(CommitError::Write(WriteError::ReadBack)));
    }

    #[test]
    fn rule_1_a_change_of_an_older_record_is_refused(old in record(), behind in 1_u64..9) {
        let mut device = support::boot_state(512, &[None, Some(old.clone())]);
        let older = support::numbered(old.clone(), old.sequence - behind);
        let refused = BootState::new(&mut device).commit(&older);
        let stale = matches!(refused, Err(CommitError::Stale { .. }));
        prop_assert!(stale);
        prop_assert!(device.writes.is_empty());
    }

    #[test]
    fn rule_1_of_equal_sequence_numbers_what_permits_less_wins(
        one in record(), other in record(), more in 0_usize..5,
    ) {
        let other = support::numbered(other, one.sequence);
        let load = |first: &Record, second: &Record| {
            let copies = [Some(first.clone()), Some(second.clone())];
            BootState::new(support::boot_state(512, &copies)).load().record.unwrap()
        };
        prop_assert_eq!(load(&one, &other), load(&other, &one));
        let mut permits_more = one.clone();
        match more {
            0 if one.a.tries < 7 => permits_more.a.tries += 1,
            1 if !one.b.successful => permits_more.b.successful = true,
            2 if one.a.priority < 2 => permits_more.a.priority += 1,
            3 if one.floors.system.keyring_serial.0 > 0 => {
                permits_more.floors.system.keyring_serial.0 -= 1;
            }
            4 if one.one_shot.is_none() => permits_more.one_shot = Some(Target::B),
            _ => {}
        }
        prop_assert_eq!(load(&permits_more, &one), one);
    }

    #[test]
    fn rule_2_an_unproved_slot_starts_only_with_its_decrement_on_the_disk(
        disk in disk(), record in record(),
    ) {
        let mut machine = machine(&disk, Some(&record));
        let Some(chosen) = machine.start(&trust()) else { return Ok(()) };
        let on_disk = machine.loads.last().unwrap().1.clone().unwrap();
        prop_assert!(chosen.recorded);
        prop_assert_eq!(on_disk.nonce, chosen.nonce);
        prop_assert_eq!(on_disk.last_tried, Some(chosen.target));
        prop_assert_eq!(on_disk.one_shot, None);
        if let (Some(slot), false) = (chosen.target.slot(), chosen.why == Why::Uncounted) {
            let (before, now) = (record.slot(slot), on_disk.slot(slot));
            if before.digest != now.digest {
                prop_assert!(chosen.why == Why::Rebuilt && now.tries == 0 && !now.successful);
            } else if before.successful {
                prop_assert!(now.failure_streak > before.failure_streak.min(u16::MAX - 1));
            } else {
                prop_assert!(now.tries < before.tries);
            }
        }
        for slot in Slot::BOTH {
            let (before, now) = (record.slot(slot), on_disk.slot(slot));
            if before.digest == now.digest {
                prop_assert!(now.tries <= before.tries, "never refilled");
                prop_assert_eq!(now.successful, before.successful);
            } else {
                prop_assert!(now.tries <= 1 && !now.successful, "rule 6");
            }
        }
    }

    #[test]
    fn rule_2_where_nothing_can_be_written_only_a_good_slot_starts(
        disk in disk(), record in record(),
    ) {
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = true;
        let Some(chosen) = machine.start(&trust()) else { return Ok(()) };
        prop_assert!(!chosen.recorded);
        prop_assert_eq!(chosen.nonce, record.nonce);
        match chosen.why {
            Why::Unrecorded => prop_assert!(chosen.target.slot().is_none_or(|slot| record.slot(slot).is_good())),
            why => prop_assert_eq!(why, Why::Uncounted),
        }
    }

    #[test]
    fn rule_2_where_nothing_can_be_written_no_good_slot_is_started_for_ever(
        priorities in prop::array::uniform2(1_u8..=2), first in any::<u64>(),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        for (slot, priority) in Slot::BOTH.into_iter().zip(priorities) {
            *record.slot_mut(slot) = good(disk.contents(slot), priority);
        }
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = true;
        machine.nonces = first >> 1;
        let started: Vec<_> =
            (0..16).map(|_| machine.start(&trust()).unwrap().target).collect();
        prop_assert!(started.contains(&Target::A) && started.contains(&Target::B));
    }

    #[test]
    fn rule_2_where_nothing_can_be_written_what_was_to_start_once_does_not_start_for_ever(
        slot in prop::sample::select(&Slot::BOTH[..]), first in any::<u64>(),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        for slot in Slot::BOTH {
            *record.slot_mut(slot) = good(disk.contents(slot), 1);
        }
        record.slot_mut(slot).priority = 2;
        record.one_shot = Some(slot.other().into());
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = true;
        machine.nonces = first >> 1;
        let preferred = (0..64).filter(|_| machine.start(&trust()).unwrap().target == slot.into());
        prop_assert!(preferred.count() > 32, "two in three");
    }

    #[test]
    fn rule_2_where_nothing_can_be_written_recovery_has_its_turn_once_in_a_while(first in any::<u64>()) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.a = good(disk.contents(Slot::A), 1);
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = true;
        machine.nonces = first >> 1;
        let starts: Vec<_> = (0..32).map(|_| machine.start(&trust()).unwrap().target).collect();
        let of_recovery = starts.iter().filter(|target| **target == Target::Recovery).count();
        prop_assert_eq!(of_recovery, 4, "one in eight");
        prop_assert!(starts.iter().all(|target| *target != Target::B), "never what is not good");
    }

    #[test]
    fn rule_8_where_nothing_can_be_written_the_last_resort_goes_round_by_chance(
        last in prop::option::of(prop::sample::select(&Target::ALL[..])), first in any::<u64>(),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.last_tried = last;
        for slot in Slot::BOTH {
            *record.slot_mut(slot) = trial(disk.contents(slot), 1, 1);
            record.slot_mut(slot).tries = 0;
        }
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = true;
        machine.nonces = first >> 1;
        let started: Vec<_> =
            (0..32).map(|_| machine.start(&trust()).unwrap().target).collect();
        prop_assert!(Target::ALL.iter().all(|target| started.contains(target)), "{:?}", started);
    }

    #[test]
    fn rule_3_nothing_changes_the_booted_slot_but_its_verdict(record in record(), sv in 0_u64..9) {
        for slot in Slot::BOTH {
            let booted = Target::from(slot);
            let image = contents(9, sv);
            prop_assert!(transition::clear(&record, slot, booted).is_err());
            prop_assert!(transition::stage(&record, slot, image, booted).is_err());
            prop_assert!(transition::activate(&record, slot, booted).is_err());
            let digest = record.slot(slot.other()).digest;
            prop_assert!(transition::mark_good(&record, slot.other(), &digest, booted).is_err());
        }
    }

    #[test]
    fn rule_4_a_slot_is_emptied_only_beside_a_good_one_or_when_it_cannot_start(
        record in record(), recovery in any::<bool>(),
    ) {
        for slot in Slot::BOTH {
            let booted = if recovery { Target::Recovery } else { slot.other().into() };
            let before = record.slot(slot).status();
            match transition::clear(&record, slot, booted) {
                Ok(next) => {
                    prop_assert!(record.slot(slot.other()).is_good() || !record.slot(slot).is_startable());
                    prop_assert_eq!(next.slot(slot).status(), SlotStatus::Empty);
                    prop_assert_eq!(next.slot(slot.other()), record.slot(slot.other()));
                    prop_assert!(Selector::new(&next).all(|it| it.target != slot.into()));
                }
                Err(_) => prop_assert!(matches!(before, SlotStatus::Good | SlotStatus::Trial)),
            }
        }
    }

    #[test]
    fn rule_4_what_is_staged_starts_only_once_it_is_activated(record in record(), sv in 0_u64..6) {
        let (slot, booted) = (Slot::B, Target::A);
        let Ok(cleared) = transition::clear(&record, slot, booted) else { return Ok(()) };
        let Ok(staged) = transition::stage(&cleared, slot, contents(9, sv), booted) else {
            let image = contents(9, sv).level;
            prop_assert!(record.floors.system.admits(image).is_err());
            return Ok(());
        };
        prop_assert_eq!(staged.slot(slot).status(), SlotStatus::Staged);
        prop_assert!(Selector::new(&staged).all(|it| it.target != slot.into()));
        let active = transition::activate(&staged, slot, booted).unwrap();
        prop_assert_eq!(active.slot(slot).status(), SlotStatus::Trial);
        prop_assert_eq!(active.slot(slot).tries, 3);
        let first = Selector::new(&active).find(|it| it.why == Why::Priority);
        prop_assert_eq!(first.unwrap().target, slot.into());
        let other = active.slot(slot.other());
        prop_assert_eq!(other.successful, record.slot(slot.other()).successful);
        prop_assert_eq!(other.tries, record.slot(slot.other()).tries);
    }

    #[test]
    fn rule_5_what_does_not_verify_never_starts(
        disk in disk(), record in prop::option::of(record()), floor in prop::option::of(0_u64..5),
    ) {
        let mut machine = machine(&disk, record.as_ref());
        if let Some(floor) = floor {
            machine.set_floors(&support::floors(floor, floor));
        }
        let startable = disk.startable(floor.unwrap_or(0));
        match machine.start(&trust()) {
            Some(chosen) => prop_assert!(startable.contains(&chosen.target), "{chosen:?}"),
            None => prop_assert_eq!(startable, [], "rule 8: something verifies\n{:#?}", machine.log),
        }
    }

    #[test]
    fn rule_6_a_lost_record_is_made_anew_with_one_try_each(disk in disk(), boots in 1_usize..9) {
        let mut machine = machine(&disk, None);
        let startable = disk.startable(0);
        let mut proper = Vec::new();
        for _ in 0..boots {
            let Some(chosen) = machine.start(&trust()) else { break };
            if chosen.why != Why::Uncounted {
                proper.push(chosen.target);
            }
            let record = machine.record().unwrap();
            for slot in Slot::BOTH {
                let entry = record.slot(slot);
                prop_assert!(!entry.successful && entry.tries <= 1);
                prop_assert_eq!(entry.digest.is_zero(), !startable.contains(&slot.into()));
            }
        }
        proper.sort();
        let once_each = proper.windows(2).all(|two| two[0] < two[1]);
        prop_assert!(once_each, "counters were refilled: {proper:?}");
    }

    #[test]
    fn rule_6_a_record_about_other_images_is_as_good_as_lost(
        disk in disk(), old in disk(), boots in 1_usize..9,
    ) {
        let mut record = Record::empty();
        record.a = good(Disk { security_versions: [7, 8, 1], ..old.clone() }.contents(Slot::A), 2);
        record.b = good(Disk { security_versions: [8, 7, 1], ..old }.contents(Slot::B), 1);
        let mut machine = machine(&disk, Some(&record));
        let startable = disk.startable(0);
        let mut proper = Vec::new();
        for _ in 0..boots {
            let Some(chosen) = machine.start(&trust()) else { break };
            if chosen.why != Why::Uncounted {
                prop_assert!(chosen.why == Why::Rebuilt || !proper.is_empty(), "{chosen:?}");
                proper.push(chosen.target);
            }
            let now = machine.record().unwrap();
            for slot in Slot::BOTH.into_iter().filter(|slot| startable.contains(&Target::from(*slot))) {
                let entry = now.slot(slot);
                prop_assert!(!entry.successful && entry.tries <= 1, "{entry:?}");
                prop_assert_eq!(entry.digest, disk.contents(slot).digest);
            }
        }
        proper.sort();
        let once_each = proper.windows(2).all(|two| two[0] < two[1]);
        prop_assert!(once_each, "counters were refilled: {proper:?}");
        let slots = startable.iter().filter(|target| target.slot().is_some()).count();
        prop_assert_eq!(proper.len(), slots.min(boots));
    }

    #[test]
    fn rule_7_pulling_the_plug_never_makes_a_good_slot_unbootable(
        both in any::<bool>(), streaks in prop::array::uniform2(any::<u16>()), pulls in 1_usize..40,
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.a = good(disk.contents(Slot::A), 2);
        record.a.failure_streak = streaks[0];
        if both {
            record.b = good(disk.contents(Slot::B), 1);
            record.b.failure_streak = streaks[1];
        }
        let mut machine = machine(&disk, Some(&record));
        let mut before = None;
        for _ in 0..pulls {
            let chosen = machine.start(&trust()).unwrap();
            if chosen.target == Target::Recovery {
                prop_assert_eq!(chosen.why, Why::Uncounted);
                prop_assert_ne!(before, Some(Target::Recovery), "a good slot has the next turn");
            } else {
                prop_assert_eq!(chosen.why, Why::Priority);
                prop_assert!(both || chosen.target == Target::A);
            }
            before = Some(chosen.target);
        }
        let after = machine.record().unwrap();
        prop_assert!(after.a.is_good());
        prop_assert_eq!(after.b.is_good(), both);
        let up = transition::clear_streak(&transition::clear_streak(&after, Slot::A), Slot::B);
        prop_assert_eq!(Selector::new(&up).next().unwrap().target, Target::A);
    }

    #[test]
    fn rule_7_a_long_streak_yields_to_the_other_good_slot(streak in 5_u16.., shorter in any::<u16>()) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.a = good(disk.contents(Slot::A), 2);
        record.b = good(disk.contents(Slot::B), 1);
        (record.a.failure_streak, record.b.failure_streak) = (streak, shorter);
        let first_slot = |record: &Record| {
            let mut slots = Selector::new(record).filter(|it| it.target != Target::Recovery);
            slots.next().unwrap().target
        };
        prop_assert_eq!(first_slot(&record), if shorter < streak { Target::B } else { Target::A });
        record.b = trial(disk.contents(Slot::B), 1, 3);
        prop_assert_eq!(first_slot(&record), Target::A);
    }

    #[test]
    fn rule_7_a_good_slot_that_never_comes_up_lets_recovery_start_and_stays_bootable(
        both in any::<bool>(), streaks in prop::array::uniform2(any::<u16>()),
        disk in disk(), last in prop::option::of(support::target()),
    ) {
        let sound = Disk::sound();
        let mut record = Record::empty();
        record.last_tried = last;
        record.a = good(sound.contents(Slot::A), 2);
        record.a.failure_streak = streaks[0];
        if both {
            record.b = good(sound.contents(Slot::B), 1);
            record.b.failure_streak = streaks[1];
        }
        // Whatever happens from here on, within two rounds of long streaks recovery had a turn.
        let mut never_up = machine(&sound, Some(&record));
        let started: Vec<_> = (0..2 * 25).map(|_| never_up.start(&trust()).unwrap().target).collect();
        let lowest = if both { streaks[0].min(streaks[1]) } else { streaks[0] };
        if !both || streaks[0].abs_diff(streaks[1]) < 10 || lowest >= 10 {
            prop_assert!(started.contains(&Target::Recovery), "{started:?}");
        }
        prop_assert!(started.windows(2).all(|two| two != [Target::Recovery; 2]), "{started:?}");
        prop_assert!(never_up.record().unwrap().a.is_good());
        // Recovery that does not verify costs nothing: the good slot starts in the same start.
        let startable = disk.startable(0);
        if startable.contains(&Target::A) && !startable.contains(&Target::Recovery) {
            let mut record = Record::empty();
            record.a = good(disk.contents(Slot::A), 2);
            record.a.failure_streak = RECOVERY_STREAK;
            let chosen = machine(&disk, Some(&record)).start(&trust()).unwrap();
            prop_assert_eq!((chosen.target, chosen.why), (Target::A, Why::Priority));
        }
    }

    #[test]
    fn rule_7_one_who_asked_for_one_start_gets_it_before_recovery(
        streak in any::<u16>(), asked in support::target(),
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        for slot in Slot::BOTH {
            *record.slot_mut(slot) = good(disk.contents(slot), 1);
            record.slot_mut(slot).failure_streak = streak;
        }
        record.one_shot = Some(asked);
        let first = Selector::new(&record).next().unwrap();
        prop_assert_eq!((first.target, first.why), (asked, Why::OneShot));
        prop_assert!(Selector::new(&record).skip(1).all(|it| it.target != asked));
    }

    #[test]
    fn rule_8_the_last_resort_goes_round_and_changes_no_counter(
        disk in disk(), last in prop::option::of(support::target()),
    ) {
        let mut record = Record::empty();
        record.last_tried = last;
        record.a = trial(disk.contents(Slot::A), 2, 0);
        record.b = trial(disk.contents(Slot::B), 0, 0);
        let mut machine = machine(&disk, Some(&record));
        let startable = disk.startable(0);
        let mut started = Vec::new();
        for _ in 0..startable.len() * 2 {
            let chosen = machine.start(&trust()).unwrap();
            prop_assert_eq!(chosen.why, Why::Uncounted);
            started.push(chosen.target);
            let now = machine.record().unwrap();
            prop_assert_eq!((&now.a, &now.b), (&record.a, &record.b));
        }
        let (first, second) = started.split_at(startable.len());
        prop_assert_eq!(first, second);
        let mut once = first.to_vec();
        once.sort();
        prop_assert_eq!(once, startable);
    }

    #[test]
    fn rule_8_something_always_starts_while_something_verifies(
        disk in disk(), record in prop::option::of(record()), read_only in any::<bool>(),
        missing in any::<bool>(),
    ) {
        let mut machine = machine(&disk, record.as_ref());
        if missing {
            machine.boot_state = None;
        } else {
            machine.boot_state.as_mut().unwrap().read_only = read_only;
        }
        let chosen = machine.start(&trust());
        prop_assert_eq!(chosen.is_some(), !disk.startable(0).is_empty(), "{:#?}", machine.log);
    }

    #[test]
    fn rule_9_the_floor_rises_no_higher_than_the_lowest_good_slot(record in record()) {
        let raised = transition::raise_floor(&record).floors;
        let before = record.floors.system;
        let good = Slot::BOTH.map(|slot| record.slot(slot)).into_iter().filter(|it| it.is_good());
        let good: Vec<Level> = good.map(|it| it.level()).collect();
        let lowest = good.iter().copied().reduce(Level::min).unwrap_or_default();
        prop_assert_eq!(raised.system, before.max(lowest), "it never falls");
        prop_assert_eq!(raised.recovery, record.floors.recovery);
        if good.iter().all(|level| before.admits(*level).is_ok()) {
            prop_assert!(good.iter().all(|level| raised.system.admits(*level).is_ok()));
        }
    }

    #[test]
    fn rule_9_recoverys_floor_rises_to_recovery_while_both_slots_are_good(
        record in record(), version in 0_u64..9, serial in 0_u64..9,
    ) {
        let installed = Level::new(version, serial);
        let raised = transition::raise_recovery_floor(&record, installed).floors;
        prop_assert_eq!(raised.system, record.floors.system);
        let both_good = record.a.is_good() && record.b.is_good();
        let expected = if both_good { record.floors.recovery.max(installed) } else { record.floors.recovery };
        prop_assert_eq!(raised.recovery, expected);
    }

    #[test]
    fn rule_9_the_record_keeps_an_older_recovery_from_starting_while_anything_else_does(
        disk in disk(), version in 0_u64..6, serial in 0_u64..4, read_only in any::<bool>(),
    ) {
        let mut record = Record::empty();
        record.one_shot = Some(Target::Recovery);
        record.floors.recovery = Level::new(version, serial);
        record.a = good(disk.contents(Slot::A), 2);
        let mut machine = machine(&disk, Some(&record));
        machine.boot_state.as_mut().unwrap().read_only = read_only;
        let startable = disk.startable(0);
        let chosen = machine.start(&trust()).map(|chosen| chosen.target);
        prop_assert_eq!(chosen.is_some(), !startable.is_empty(), "{:#?}", machine.log);
        let admitted = record.floors.recovery.admits(Level::new(disk.security_versions[2], 1));
        if chosen == Some(Target::Recovery) && admitted.is_err() {
            prop_assert_eq!(startable, [Target::Recovery]);
        }
    }

    #[test]
    fn rule_9_a_floor_above_every_slot_is_not_believed(above in 1_u64.., liar in any::<bool>()) {
        let disk = Disk::sound();
        let highest = disk.highest();
        let mut record = Record::empty();
        record.floors.system.security_version = SecurityVersion(highest.saturating_add(above));
        record.a = good(disk.contents(Slot::A), 2);
        record.b = good(disk.contents(Slot::B), 1);
        if liar {
            record.b.security_version = SecurityVersion(u64::MAX);
        }
        let mut machine = machine(&disk, Some(&record));
        let chosen = machine.start(&trust()).unwrap();
        prop_assert_eq!((chosen.target, chosen.why), (Target::A, Why::Priority));
        prop_assert_eq!(machine.record().unwrap().floors.system.security_version, SecurityVersion(0));
    }

    #[test]
    fn rule_9_the_firmware_floor_follows_no_further_than_what_is_good(
        firmware in 0_u64..4, cached in 0_u64..6,
    ) {
        let disk = Disk::sound();
        let mut record = Record::empty();
        record.floors.system.security_version = SecurityVersion(cached);
        record.a = good(disk.contents(Slot::A), 2);
        record.b = good(disk.contents(Slot::B), 1);
        let mut machine = machine(&disk, Some(&record));
        machine.set_floors(&support::floors(firmware, 0));
        machine.start(&trust());
        let lowest = Slot::BOTH.map(|slot| disk.contents(slot).level.security_version.0);
        let lowest = lowest.into_iter().filter(|it| *it >= firmware).min().unwrap_or(0);
        let expected = firmware.max(cached.min(lowest));
        prop_assert_eq!(machine.floors().system.security_version, SecurityVersion(expected));
    }

    #[test]
    fn rule_9_recoverys_firmware_floor_follows_no_further_than_recovery(
        firmware in 0_u64..4, cached in 0_u64..6, health in any::<bool>(),
    ) {
        let mut disk = Disk { security_versions: [2, 3, 2], ..Disk::sound() };
        if !health {
            disk.health[2] = Health::BadEnvelope;
        }
        let mut record = Record::empty();
        record.floors.recovery.security_version = SecurityVersion(cached);
        record.a = good(disk.contents(Slot::A), 2);
        let mut machine = machine(&disk, Some(&record));
        machine.set_floors(&support::floors(0, firmware));
        machine.start(&trust());
        let recovery = if health && firmware <= 2 { 2 } else { 0 };
        let expected = firmware.max(cached.min(recovery));
        prop_assert_eq!(machine.floors(), support::floors(0, expected));
    }

    #[test]
    fn no_decision_reads_the_clock(disk in disk(), record in prop::option::of(record())) {
        let start = |now| {
            let mut machine = machine(&disk, record.as_ref());
            machine.now = now;
            let chosen = machine.start(&trust()).map(|it| (it.target, it.why, it.recorded, it.nonce));
            (chosen, machine.record(), machine.log)
        };
        let without = start(None);
        for now in [i64::MIN, -1, 0, 1_790_000_000, 4_102_444_800, i64::MAX] {
            prop_assert_eq!(&start(Some(now)), &without);
        }
    }

    #[test]
    fn every_transition_keeps_the_reserved_bytes(record in record(), which in 0_usize..9) {
        let (nonce, image) = (Nonce([3; 16]), contents(9, 9));
        let (slot, booted) = (Slot::B, Target::A);
        let digest = record.b.digest;
        let next = match which {
            0 => transition::start(&record, Target::B, nonce),
            1 => Ok(transition::start_uncounted(&record, Target::Recovery, nonce)),
            2 => transition::clear(&record, slot, booted),
            3 => transition::stage(&record, slot, image, booted),
            4 => transition::activate(&record, slot, booted),
            5 => transition::mark_good(&record, slot, &digest, Target::B),
            6 => transition::give_up(&record, slot, &digest),
            7 => transition::rollback(&record, Slot::A),
            _ => transition::set_one_shot(&record, Some(Target::Recovery)),
        };
        if let Ok(next) = next {
            prop_assert_eq!(support::reserved(&next), support::reserved(&record));
        }
    }
}

#[test]
fn rule_6_a_slot_that_was_adopted_is_tried_once_in_a_start() {
    let rebuilt = |target| (target, Why::Rebuilt);
    let recovery = (Target::Recovery, Why::Uncounted);
    let both = vec![rebuilt(Target::A), rebuilt(Target::B), recovery];
    let alone = vec![rebuilt(Target::A), recovery];
    for (other, expected) in [(Health::Sound, both), (Health::BadEnvelope, alone)] {
        let disk = Disk {
            health: [Health::Sound, other, Health::Sound],
            ..Disk::sound()
        };
        let mut record = Record::empty();
        record.a = good(contents(1, 2), 2);
        record.b = good(contents(2, 3), 1);
        let mut machine = machine(&disk, Some(&record));
        let trust = trust();
        let mut boot = Boot::new(&trust);
        let mut tried = Vec::new();
        while let Some(chosen) = boot.next(&mut machine) {
            boot.failed_to_start(&mut machine, chosen.target, "LoadImage: not supported");
            tried.push((chosen.target, chosen.why));
        }
        assert_eq!(tried, expected);
    }
}

/// The power went between a slot's header and the commit that stages it, and nothing else starts.
#[test]
fn rule_6_a_slot_that_the_record_does_not_mention_is_adopted_before_the_last_resort() {
    let disk = Disk {
        health: [Health::Sound, Health::BadEnvelope, Health::Sound],
        ..Disk::sound()
    };
    let mut record = Record::empty();
    record.b = good(disk.contents(Slot::B), 1);
    record.last_tried = Some(Target::Recovery);
    let mut machine = machine(&disk, Some(&record));
    let chosen = machine.start(&trust()).unwrap();
    assert_eq!((chosen.target, chosen.why), (Target::A, Why::Rebuilt));
    let adopted = machine.record().unwrap().a;
    assert_eq!(adopted.contents(), Some(disk.contents(Slot::A)));
    assert_eq!((adopted.tries, adopted.is_good()), (0, false));
}

#[test]
fn rule_8_a_slot_of_which_nothing_can_be_recorded_is_the_last_resort() {
    let disk = Disk {
        health: [Health::Sound, Health::Missing, Health::Missing],
        ..Disk::sound()
    };
    let mut record = Record::empty();
    record.a = good(contents(1, 2), 2);
    let mut machine = machine(&disk, Some(&record));
    machine.boot_state.as_mut().unwrap().read_only = true;
    let chosen = machine.start(&trust()).unwrap();
    assert_eq!((chosen.target, chosen.why), (Target::A, Why::Uncounted));
}

#[test]
fn swapped_slots_start_neither_but_recovery() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.a = good(disk.contents(Slot::A), 2);
    record.b = good(disk.contents(Slot::B), 1);
    let mut machine: Machine = machine(&disk, Some(&record));
    machine.slots.swap(0, 1);
    let started: Vec<_> = (0..3)
        .map(|_| machine.start(&trust()).unwrap().target)
        .collect();
    assert_eq!(started, [Target::Recovery; 3]);
    let record = machine.record().unwrap();
    assert!(record.a.is_good() && record.b.is_good());
}

#[test]
fn rule_7_ten_pulls_alternate_once_the_streak_is_long() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.a = good(disk.contents(Slot::A), 2);
    record.b = good(disk.contents(Slot::B), 1);
    let mut machine: Machine = machine(&disk, Some(&record));
    let started: Vec<_> = (0..12)
        .map(|_| machine.start(&trust()).unwrap().target)
        .collect();
    let (a, b) = (Target::A, Target::B);
    assert_eq!(started, [a, a, a, a, a, b, b, b, b, b, a, b]);
}

#[test]
fn rule_7_a_good_slot_that_never_comes_up_yields_to_recovery_after_ten_starts() {
    let disk = Disk::sound();
    let mut record = Record::empty();
    record.a = good(disk.contents(Slot::A), 2);
    let mut machine: Machine = machine(&disk, Some(&record));
    let mut starts = |count: usize| -> Vec<_> {
        (0..count)
            .map(|_| machine.start(&trust()).unwrap().target)
            .collect()
    };
    assert_eq!(starts(10), [Target::A; 10]);
    for _ in 0..3 {
        assert_eq!(starts(1), [Target::Recovery]);
        assert_eq!(starts(5), [Target::A; 5]);
    }
    // Up once, and the count starts anew.
    machine.update(|record| transition::clear_streak(record, Slot::A));
    let after: Vec<_> = (0..10)
        .map(|_| machine.start(&trust()).unwrap().target)
        .collect();
    assert_eq!(after, [Target::A; 10]);
}
