//! Whether `state` has to be checked before it is used, and what is made of what e2fsck says. Pure over [`Steps`].

use std::fmt::Display;

use boot_core::boot_report::StateProblem;

use super::Unfit;
use super::e2fsck::{Checked, How};
use super::ext4::{Due, Superblock};
use crate::failure::Failure;

/// What can be done with the filesystem; of the kernel's making in a start, of a test's in a test.
pub(super) trait Steps {
    fn superblock(&mut self) -> Result<Superblock, Unfit>;
    /// The same once it is mounted; none if it cannot be read.
    fn mounted_superblock(&mut self) -> Option<Superblock>;
    /// The blocks of 4096 bytes in which there is a copy of the superblock; a failure for each that cannot be read.
    fn copies(&mut self) -> Result<Vec<Result<u64, Failure>>, Failure>;
    fn check(&mut self, how: How, why: &dyn Display) -> Result<Checked, Failure>;
    fn mount(&mut self) -> Result<(), Failure>;
    fn unmount(&mut self) -> Result<(), Failure>;
}

/// Checks what has to be checked and mounts. `Some` says what was repaired.
///
/// `state` is to be checked before it is mounted, and it is: every start reads the superblock and asks what `e2fsck -p`
/// would ask ([`Superblock::check_due`]). Only if the answer calls for more does e2fsck run, from the verified root. A
/// pulled plug alone does not: all that `e2fsck -p` does then is to replay the journal, and so does the kernel when it
/// mounts. Two things only show while the journal is replayed, and bring e2fsck in after all: an error that the journal
/// had noted and the superblock not yet, and a filesystem that the kernel cannot mount. In both cases nothing has used
/// the filesystem in between. A superblock that is gone is restored from one of its copies.
pub(super) fn mount_checked(steps: &mut impl Steps, now: u64) -> Result<Option<String>, Unfit> {
    let before = match steps.superblock() {
        Err(lost) if lost.problem == StateProblem::Damaged => {
            let restored = restore(steps, lost)?;
            steps.mount()?;
            return Ok(Some(restored));
        }
        superblock => superblock?,
    };
    if let Some(due) = before.check_due(now) {
        let repaired = check(steps, How::AsItSays, &due)?;
        steps.mount()?;
        return Ok(repaired);
    }
    if let Err(failure) = steps.mount() {
        // Not as the superblock says: to it, what cannot be mounted may still look clean.
        let repaired = check(steps, How::Whole, &failure.reason())?;
        steps.mount()?;
        return Ok(repaired);
    }
    let after = before.replay.then(|| steps.mounted_superblock()).flatten();
    if let Some(due @ Due::Error) = after.and_then(|after| after.check_due(now)) {
        steps.unmount()?;
        let repaired = check(steps, How::AsItSays, &due)?;
        steps.mount()?;
        return Ok(repaired);
    }
    if after.is_some_and(|after| after.blocks != before.blocks) {
        // The kernel counts the block groups before it replays: those of a growth that was cut off are used from the
        // next mount on only, and until then the filesystem looks full.
        steps.unmount()?;
        steps.mount()?;
    }
    Ok(None)
}

fn check(steps: &mut impl Steps, how: How, why: &dyn Display) -> Result<Option<String>, Unfit> {
    let (problem, said) = match steps.check(how, why)? {
        Checked::Clean => return Ok(None),
        Checked::Repaired => return Ok(Some(format!("{why}; e2fsck repaired it"))),
        Checked::Damaged(said) => (StateProblem::Damaged, said),
        Checked::NotChecked(said) => (StateProblem::Unusable, said),
    };
    let why = format!("{why}; e2fsck -p did not repair it ({said})");
    Err(Unfit {
        problem,
        failure: Failure::new("checking", "state", why),
    })
}

/// Has the superblock restored, and with it whatever else `e2fsck -p` dares to repair.
///
/// Lost for good is what has no copy, or none with which e2fsck gets on: behind each copy lies one of the group
/// descriptors. A copy that could not be read, or that e2fsck could not work with, may be whole.
fn restore(steps: &mut impl Steps, lost: Unfit) -> Result<String, Unfit> {
    let why = lost.failure.reason();
    let mut worst = lost;
    for copy in steps.copies()? {
        let (problem, said) = match copy {
            Err(failure) => (StateProblem::Unusable, failure.reason()),
            Ok(block) => {
                let (problem, said) = match steps.check(How::ByCopy(block), &why)? {
                    Checked::Clean | Checked::Repaired => {
                        return Ok(format!(
                            "{why}; e2fsck restored it from the copy in block {block}"
                        ));
                    }
                    Checked::Damaged(said) => (StateProblem::Damaged, said),
                    Checked::NotChecked(said) => (StateProblem::Unusable, said),
                };
                (
                    problem,
                    format!("e2fsck -p by the copy in block {block}: {said}"),
                )
            }
        };
        if worst.problem == StateProblem::Damaged {
            let failure = Failure::new("restoring", "state", format!("{why}; {said}"));
            worst = Unfit { problem, failure };
        }
    }
    Err(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Context;
    use crate::state::ext4::{self, NotExt4};

    /// A filesystem as its superblock tells it before, and after a replay; what is done with it is noted.
    struct Fake {
        superblocks: Vec<Result<Superblock, NotExt4>>,
        mounts: Vec<bool>,
        /// Blocks with copies of the superblock; none: one that cannot be read.
        copies: Vec<Option<u64>>,
        /// What e2fsck comes to by this copy of the superblock; without one it repairs.
        checks: fn(How) -> Checked,
        done: Vec<String>,
    }

    impl Steps for Fake {
        fn superblock(&mut self) -> Result<Superblock, Unfit> {
            self.superblocks.remove(0).map_err(|error| Unfit {
                problem: StateProblem::Damaged,
                failure: Failure::new("reading", "state", error),
            })
        }
        fn mounted_superblock(&mut self) -> Option<Superblock> {
            self.superblock().ok()
        }
        fn copies(&mut self) -> Result<Vec<Result<u64, Failure>>, Failure> {
            let found = self.copies.iter();
            Ok(found
                .map(|copy| copy.context("reading", "a block"))
                .collect())
        }
        fn check(&mut self, how: How, why: &dyn Display) -> Result<Checked, Failure> {
            self.done.push(format!("check {how:?}: {why}"));
            Ok((self.checks)(how))
        }
        fn mount(&mut self) -> Result<(), Failure> {
            self.done.push("mount".into());
            if self.mounts.remove(0) {
                Ok(())
            } else {
                Err(Failure::new("mounting", "state", "bad journal"))
            }
        }
        fn unmount(&mut self) -> Result<(), Failure> {
            self.done.push("unmount".into());
            Ok(())
        }
    }

    /// With this state word (1 valid, 2 errors) and a journal to replay or not.
    fn superblock_with(state: u8, replay: bool) -> Superblock {
        let mut bytes = vec![0; ext4::NEEDED];
        bytes[1024 + 24] = 2;
        bytes[1024 + 56..1024 + 58].copy_from_slice(&0xEF53_u16.to_le_bytes());
        bytes[1024 + 58] = state;
        bytes[1024 + 96] = if replay { 4 } else { 0 };
        ext4::parse(&bytes).unwrap()
    }

    fn fake(superblocks: &[(u8, bool)], mounts: &[bool]) -> Fake {
        Fake {
            superblocks: superblocks
                .iter()
                .map(|(state, replay)| Ok(superblock_with(*state, *replay)))
                .collect(),
            mounts: mounts.to_vec(),
            copies: Vec::new(),
            checks: |_| Checked::Repaired,
            done: Vec::new(),
        }
    }

    fn done(superblocks: &[(u8, bool)], mounts: &[bool]) -> (Vec<String>, bool) {
        let mut fake = fake(superblocks, mounts);
        let repaired = mount_checked(&mut fake, 0).unwrap().is_some();
        (fake.done, repaired)
    }

    #[test]
    fn what_needs_no_more_than_a_replay_is_only_mounted() {
        assert_eq!(done(&[(1, false)], &[true]), (vec!["mount".into()], false));
        let pulled = [(1, true), (1, true)];
        assert_eq!(done(&pulled, &[true]), (vec!["mount".into()], false));
    }

    /// What the kernel had counted is what was there before the replay.
    #[test]
    fn a_growth_that_was_replayed_is_mounted_again() {
        let mut grown = superblock_with(1, true);
        grown.blocks = 8;
        let mut fake = fake(&[(1, true)], &[true, true]);
        fake.superblocks.push(Ok(grown));
        assert_eq!(mount_checked(&mut fake, 0).unwrap(), None);
        assert_eq!(fake.done, ["mount", "unmount", "mount"]);
    }

    #[test]
    fn a_noted_error_is_checked_before_the_mount() {
        let (steps, repaired) = done(&[(3, true)], &[true]);
        assert!(repaired);
        let check = "check AsItSays: the kernel noted an error in it";
        assert_eq!(steps, [check, "mount"]);
    }

    #[test]
    fn an_error_that_the_journal_brings_up_is_checked_before_anything_uses_it() {
        let (steps, _) = done(&[(1, true), (3, false)], &[true, true]);
        let check = "check AsItSays: the kernel noted an error in it";
        assert_eq!(steps, ["mount", "unmount", check, "mount"]);
    }

    #[test]
    fn what_cannot_be_mounted_is_checked_in_whole_and_once() {
        let (steps, repaired) = done(&[(1, true)], &[false, true]);
        assert!(repaired);
        let check = "check Whole: mounting state: bad journal";
        assert_eq!(steps, ["mount", check, "mount"]);
    }

    fn lost(
        copies: &[Option<u64>],
        checks: fn(How) -> Checked,
    ) -> (Vec<String>, Result<Option<String>, StateProblem>) {
        let mut fake = Fake {
            superblocks: vec![Err(NotExt4::Magic)],
            copies: copies.to_vec(),
            checks,
            ..fake(&[], &[true])
        };
        let outcome = mount_checked(&mut fake, 0).map_err(|unfit| unfit.problem);
        (fake.done, outcome)
    }

    #[test]
    fn a_lost_superblock_is_restored_from_the_first_copy_that_there_is() {
        let (steps, outcome) = lost(&[Some(98_304), Some(163_840)], |_| Checked::Repaired);
        assert!(outcome.unwrap().unwrap().contains("copy in block 98304"));
        assert_eq!(steps.len(), 2, "{steps:?}");
        assert_eq!(steps[1], "mount");
    }

    #[test]
    fn a_copy_that_e2fsck_does_not_get_on_with_is_not_the_last_word() {
        let copies = [None, Some(98_304), Some(163_840), Some(229_376)];
        let (_, outcome) = lost(&copies, |how| match how {
            How::ByCopy(229_376) => Checked::Repaired,
            How::ByCopy(163_840) => Checked::NotChecked("exit code 8".into()),
            _ => Checked::Damaged("run it by hand".into()),
        });
        assert!(outcome.unwrap().unwrap().contains("copy in block 229376"));
    }

    #[test]
    fn damage_is_only_what_was_shown_to_be() {
        let repaired = |_| Checked::Repaired;
        let damaged = |_| Checked::Damaged("run it by hand".into());
        // A feature of a later kernel, a disk that is read-only, a module that is not there: the data may be whole.
        let not_checked = |_| Checked::NotChecked("unsupported feature".into());

        let (steps, outcome) = lost(&[], repaired);
        assert_eq!((steps.len(), outcome), (0, Err(StateProblem::Damaged)));
        let (steps, outcome) = lost(&[Some(1), Some(2)], damaged);
        assert_eq!((steps.len(), outcome), (2, Err(StateProblem::Damaged)));
        let (steps, outcome) = lost(&[Some(1), Some(2)], not_checked);
        assert_eq!((steps.len(), outcome), (2, Err(StateProblem::Unusable)));
        let (_, outcome) = lost(&[Some(1), None, Some(2)], damaged);
        assert_eq!(outcome, Err(StateProblem::Unusable), "one cannot be read");
        let (_, outcome) = lost(&[None], repaired);
        assert_eq!(outcome, Err(StateProblem::Unusable));

        let unfit = |checks, mounts: &[bool]| {
            let mut fake = fake(&[(1, false)], mounts);
            fake.checks = checks;
            mount_checked(&mut fake, 0).unwrap_err().problem
        };
        assert_eq!(unfit(damaged, &[false]), StateProblem::Damaged);
        assert_eq!(unfit(not_checked, &[false]), StateProblem::Unusable);
        assert_eq!(
            unfit(|_| Checked::Clean, &[false, false]),
            StateProblem::Unusable
        );
    }
}
