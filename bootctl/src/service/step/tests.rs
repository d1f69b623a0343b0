use super::*;
use crate::failure::Failure;

fn begun(unfinished: Result<Option<String>>) -> Seen {
    Seen::Begun(Ok(Begun {
        on_trial: true,
        unfinished,
        other_silent: true,
    }))
}

fn plan() -> ProfileSeen {
    ProfileSeen {
        is_there: true,
        ..ProfileSeen::default()
    }
}

fn unhealthy(reason: &str) -> Verdict {
    Verdict::Unhealthy(reason.into())
}

fn concluded(verdict: Verdict, came_to: Result<Settled, NotWritten>) -> Seen {
    Seen::Concluded {
        verdict,
        reason: "why".into(),
        came_to,
    }
}

/// One that is on trial and has got as far as the gate.
fn watching() -> Known {
    let mut known = Known::default();
    known.step(Seen::Started(None));
    known.step(begun(Ok(None)));
    known.step(Seen::LastRun(LastRun::Clean));
    assert_eq!(known.step(Seen::Chosen(plan())), [Action::Watch]);
    known
}

#[test]
fn a_start_goes_from_the_record_to_the_gate() {
    let mut known = Known::default();
    assert_eq!(known.step(Seen::Started(None)), [Action::Begin]);
    assert_eq!(known.step(begun(Ok(None))), [Action::AskLastRun]);
    assert_eq!(
        known.step(Seen::LastRun(LastRun::Clean)),
        [
            Action::Mark,
            Action::Ready,
            Action::TellLoader,
            Action::ClearStreak,
            Action::Choose,
        ]
    );
    assert_eq!(known.step(Seen::Chosen(plan())), [Action::Watch]);
    let judged = known.step(Seen::Judged(Verdict::Healthy));
    assert_eq!(judged, [Action::Conclude(Verdict::Healthy)]);
    assert_eq!(
        known.step(concluded(Verdict::Healthy, Ok(Settled::Healthy))),
        [
            Action::Announce("why".into()),
            Action::KeepForRecovery,
            Action::LookAtOther,
        ]
    );
    assert_eq!(known.phase, Phase::Healthy);
    assert_eq!(known.verdict, Some(Spoken::Healthy));
    // Once.
    assert_eq!(known.look_at_other(), []);
}

#[test]
fn what_is_wrong_at_the_beginning_is_said_and_keeps_nothing_from_coming_up() {
    let mut known = Known::default();
    let degrade = |why: &str| Action::Degrade(why.into());
    assert_eq!(
        known.step(Seen::Started(Some("two slots".into()))),
        [degrade("two slots"), Action::Begin]
    );
    for lost in [
        Seen::Begun(Err(Failure::failed("no record"))),
        begun(Err(Failure::failed("no record"))),
    ] {
        assert_eq!(known.step(lost), [degrade("no record"), Action::AskLastRun]);
    }
    assert!(!known.condemned);
}

#[test]
fn a_verdict_of_a_start_before_stands_whatever_this_one_sees() {
    for stays in [
        Ok(Settled::Stays("the clock is not set".into())),
        Err(NotWritten {
            why: "the disk is gone".into(),
            may_leave: false,
        }),
    ] {
        let mut known = Known::default();
        known.step(Seen::Started(None));
        assert_eq!(
            known.step(begun(Ok(Some("not Ready".into())))),
            [Action::Ready, Action::Conclude(unhealthy("not Ready"))]
        );
        let stays = known.step(concluded(unhealthy("not Ready"), stays));
        assert_eq!(stays.last(), Some(&Action::AskLastRun));
        known.step(Seen::LastRun(LastRun::Unclean));
        assert_eq!(
            known.step(Seen::Chosen(plan())),
            [Action::BringUp, Action::LookAtOther],
            "no gate"
        );
        assert_eq!(known.step(Seen::Root(Root::Sound)), [Action::ClearStreak]);
        known.brought_up = Some(true);
        for _ in 0..9 {
            let looked = Seen::Looked {
                well: true,
                profile_holds: true,
            };
            assert_eq!(known.step(looked), []);
        }
        assert_eq!(known.phase, Phase::Degraded);
    }
}

#[test]
fn a_verdict_of_a_start_before_is_acted_upon_before_anything_else() {
    let mut known = Known::default();
    known.step(Seen::Started(None));
    known.step(begun(Ok(Some("not Ready".into()))));
    let said = Action::Announce("unhealthy, going back: why".into());
    let going_back = concluded(unhealthy("not Ready"), Ok(Settled::GoingBack));
    assert_eq!(known.step(going_back), [said, Action::Reboot]);
    assert_eq!(known.phase, Phase::GoingBack);
}

#[test]
fn after_an_unclean_end_the_root_is_read_beside_the_gate() {
    let mut known = Known::default();
    known.step(Seen::Started(None));
    known.step(begun(Ok(None)));
    assert_eq!(
        known.step(Seen::LastRun(LastRun::Unclean)),
        [
            Action::NoteUnclean,
            Action::Mark,
            Action::Ready,
            Action::TellLoader,
            Action::ReadRoot,
            Action::Choose,
        ]
    );
    assert_eq!(known.root, RootRead::Pending);
    assert_eq!(known.step(Seen::Chosen(plan())), [Action::Watch]);
    let sound = known.step(Seen::Root(Root::Sound));
    assert_eq!(sound, [Action::ClearStreak, Action::Watch]);
    assert_eq!(known.root, RootRead::Sound);
    let failed = known.step(Seen::Root(Root::Failed("busy".into())));
    assert_eq!(failed, [Action::Degrade("busy".into()), Action::Watch]);
    assert_eq!(known.root, RootRead::Failed);
    let lost = "block 3".to_owned();
    assert_eq!(
        known.step(Seen::Root(Root::Damaged(lost.clone()))),
        [
            Action::NoteCorrupt(lost.clone()),
            Action::Conclude(Verdict::Unhealthy(lost)),
        ]
    );
    assert_eq!(known.root, RootRead::Damaged);
    // The gate does not open again.
    assert_eq!(known.step(Seen::Root(Root::Sound)), [Action::ClearStreak]);
}

#[test]
fn a_service_that_is_started_again_goes_on() {
    // Before the verdict: with the root.
    for (root, wanted) in [
        (RootRead::Damaged, Some(Action::ReadRoot)),
        (RootRead::Sound, Some(Action::ClearStreak)),
        (RootRead::Failed, None),
    ] {
        let mut known = Known {
            root,
            ..Known::default()
        };
        let actions = known.step(Seen::LastRun(LastRun::This));
        let found = actions
            .into_iter()
            .find(|it| matches!(it, Action::ReadRoot | Action::ClearStreak));
        assert_eq!(found, wanted, "{root:?}");
    }
    // After it: no second one.
    let mut known = Known {
        verdict: Some(Spoken::Unhealthy),
        phase: Phase::GoingBack,
        root: RootRead::Pending,
        ..Known::default()
    };
    assert_eq!(
        known.step(Seen::Started(Some("two slots".into()))),
        [
            Action::Mark,
            Action::Ready,
            Action::Reboot,
            Action::ReadRoot,
            Action::Choose
        ]
    );
    known.phase = Phase::Degraded;
    known.root = RootRead::Sound;
    assert_eq!(
        known.step(Seen::Started(None)),
        [Action::Mark, Action::Ready, Action::Choose]
    );
    assert_eq!(known.step(Seen::Chosen(plan())), [Action::BringUp]);
    assert_eq!(known.step(Seen::Root(Root::Sound)), [Action::ClearStreak]);
    known.brought_up = Some(false);
    assert_eq!(known.step(Seen::Chosen(plan())), []);
}

#[test]
fn a_profile_or_a_state_that_cannot_be_used_is_a_verdict_only_where_it_is_the_images_fault() {
    let broken = ProfileSeen {
        problem: Some("line 2".into()),
        ..plan()
    };
    let unfit = ProfileSeen {
        unfit: Some("in memory".into()),
        reboots_good: true,
        ..plan()
    };
    for (on_trial, plan, last) in [
        (true, broken.clone(), Action::Conclude(unhealthy("line 2"))),
        (false, broken, Action::Watch),
        (
            true,
            unfit.clone(),
            Action::Conclude(unhealthy("in memory")),
        ),
        (false, unfit, Action::Conclude(unhealthy("in memory"))),
        (
            false,
            ProfileSeen::default(),
            Action::Conclude(unhealthy("no profile is in force")),
        ),
    ] {
        let mut known = Known {
            on_trial,
            ..Known::default()
        };
        let kept = plan.unfit.is_none();
        let actions = known.step(Seen::Chosen(plan));
        assert_eq!(actions.last(), Some(&last));
        assert_eq!(known.brought_up, (!kept).then_some(false));
        assert!(!known.reboots_good);
    }
}

#[test]
fn a_good_slot_that_is_not_well_is_rebooted_only_if_the_profile_says_so() {
    for reboots_good in [false, true] {
        let mut known = watching();
        known.step(Seen::Chosen(ProfileSeen {
            reboots_good,
            ..plan()
        }));
        let actions = known.step(concluded(unhealthy("x"), Ok(Settled::Noted)));
        assert_eq!(actions.contains(&Action::RebootGood), reboots_good);
        assert!(actions.contains(&Action::Degrade("why".into())));
        assert_eq!(known.phase, Phase::Degraded);
    }
}

#[test]
fn a_verdict_that_cannot_be_written_is_acted_upon_only_where_the_loader_counts() {
    let error = |may_leave| NotWritten {
        why: "EIO".into(),
        may_leave,
    };
    for (verdict, may_leave, leaves) in [
        (unhealthy("x"), true, true),
        (unhealthy("x"), false, false),
        (Verdict::Healthy, true, false),
    ] {
        let mut known = watching();
        let actions = known.step(concluded(verdict, Err(error(may_leave))));
        assert_eq!(actions[0], Action::Degrade("EIO".into()));
        assert_eq!(actions.contains(&Action::Reboot), leaves);
        assert_eq!(known.verdict.is_some(), leaves);
        assert_eq!(known.phase == Phase::Degraded, !leaves);
    }
}

#[test]
fn only_a_damaged_root_is_left_whatever_the_clock() {
    let known = |root| Known {
        root,
        ..Known::default()
    };
    let clock = || Some("never saved".to_owned());
    let starts = || Ok(());
    let stays = known(RootRead::Sound).stays(clock(), starts);
    assert_eq!(stays.unwrap(), "never saved; not going back for that");
    assert_eq!(known(RootRead::Sound).stays(None, starts), None);
    assert_eq!(known(RootRead::Damaged).stays(clock(), starts), None);
    let nowhere = known(RootRead::Damaged).stays(clock(), || Err(Failure::failed("empty")));
    assert!(nowhere.unwrap().contains("no other slot"));
    assert!(known(RootRead::Damaged).booted(Slot::A, None).root_damaged);
    assert!(!known(RootRead::Pending).booted(Slot::A, None).root_damaged);
}

#[test]
fn a_machine_that_stayed_up_comes_right_after_three_looks_in_a_row() {
    let look = |well, profile_holds| Seen::Looked {
        well,
        profile_holds,
    };
    let stayed = || {
        let mut known = watching();
        known.step(concluded(unhealthy("x"), Ok(Settled::Noted)));
        known.brought_up = Some(true);
        known
    };
    let mut known = stayed();
    for well in [true, true, false, true, true] {
        assert_eq!(known.step(look(well, true)), []);
    }
    assert_eq!(known.step(look(true, false)), [], "not its own profile");
    assert_eq!(
        known.step(look(true, true)),
        [Action::ForgetDegraded, Action::Conclude(Verdict::Healthy)]
    );
    known.step(concluded(Verdict::Healthy, Ok(Settled::Healthy)));
    for _ in 0..4 {
        assert_eq!(known.step(look(true, true)), [], "it is well already");
    }
    for (brought_up, root) in [
        (None, RootRead::Sound),
        (Some(false), RootRead::Sound),
        (Some(true), RootRead::Pending),
        (Some(true), RootRead::Damaged),
    ] {
        let mut known = stayed();
        (known.brought_up, known.root) = (brought_up, root);
        for _ in 0..4 {
            assert_eq!(known.step(look(true, true)), [], "{brought_up:?} {root:?}");
        }
    }
    let mut known = stayed();
    known.root = RootRead::Failed;
    known.well_for = WELL_FOR;
    assert_eq!(known.step(look(true, true)).len(), 2);
}
