//! The `state` filesystem: checked, mounted, grown. Never formatted.
//!
//! Whatever is wrong with it, the machine still starts: degraded, with /state in memory, the reason kept and nothing on
//! the partition touched that a repair without loss would not touch. What to do about it is for the running system.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use boot_core::{Device, Digest};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::block::BlockDevice;
use crate::console;
use crate::disk;
use crate::ext4::{self, Due, NotExt4, Superblock};
use crate::failure::{Context, Failure};
use crate::fsck::{self, Checked, How};
use crate::sys;
use crate::watchdog::{self, Watchdog};

/// Growing by less than this is not worth the writes.
const WORTH: u64 = 1 << 20;

/// How `state` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Mounted; nothing had to be repaired.
    Ok,
    /// Mounted after e2fsck repaired it.
    Repaired,
    /// Not mounted; /state is in memory.
    Degraded(Problem),
}

impl Status {
    /// The word in boot.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Repaired => "repaired",
            Self::Degraded(_) => "degraded",
        }
    }

    /// What keeps it from being used.
    #[must_use]
    pub fn problem(self) -> Option<Problem> {
        match self {
            Self::Degraded(problem) => Some(problem),
            _ => None,
        }
    }
}

/// What keeps `state` from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// There is no such partition.
    Missing,
    /// What is on it is damaged beyond what can be repaired without loss.
    Damaged,
    /// It cannot be read or written, or is nothing that this version knows; it may be whole.
    Unusable,
}

impl Problem {
    /// The word in boot.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::Unusable => "unusable",
        }
    }
}

/// Why `state` is not mounted.
#[derive(Debug)]
struct Unfit {
    problem: Problem,
    failure: Failure,
}

impl From<Failure> for Unfit {
    /// Damage has to be shown; everything else is taken for something that may pass.
    fn from(failure: Failure) -> Self {
        Self {
            problem: Problem::Unusable,
            failure,
        }
    }
}

/// What became of `state`.
#[derive(Debug, Clone)]
pub struct State {
    /// How it is.
    pub status: Status,
    /// Why, if it is not ok.
    pub reason: Option<String>,
    /// Whether the filesystem was grown now.
    pub grown: bool,
}

/// Mounts the partition `name` at `target`, or memory if that cannot be done.
///
/// # Errors
/// Only if not even memory can be mounted.
pub fn mount_state(
    name: Option<&str>,
    target: &Path,
    root: &Path,
    watchdog: Option<&Watchdog>,
) -> Result<State, Failure> {
    let tried = match name {
        Some(name) => try_mount(name, target, root, watchdog),
        None => Err(Unfit {
            problem: Problem::Missing,
            failure: Failure::new("looking for the partition", "state", "not there"),
        }),
    };
    match tried {
        Ok(state) => Ok(state),
        Err(Unfit { problem, failure }) => {
            console::announce(format_args!(
                "{}; going on with /state in memory, what is written there is lost at the next restart",
                failure.reason()
            ));
            mount_memory(target)?;
            Ok(State {
                status: Status::Degraded(problem),
                reason: Some(failure.reason()),
                grown: false,
            })
        }
    }
}

fn mount_memory(target: &Path) -> Result<(), Failure> {
    mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=755,size=50%",
    )
    .context("mounting memory at", target.display())
}

fn superblock(
    name: &str,
    parse: fn(&[u8]) -> Result<Superblock, NotExt4>,
) -> Result<(Superblock, u64), Unfit> {
    let mut device = BlockDevice::open(name, false)?;
    let start = disk::read_start(&mut device, ext4::NEEDED)
        .context("reading the superblock of", device.path.display())?;
    let superblock = parse(&start).map_err(|error| Unfit {
        problem: match error {
            NotExt4::Luks => Problem::Unusable,
            NotExt4::Magic | NotExt4::Checksum | NotExt4::Nonsense => Problem::Damaged,
        },
        failure: Failure::new(
            "reading",
            format_args!("state ({})", device.path.display()),
            error,
        ),
    })?;
    Ok((superblock, device.size()))
}

/// What can be done with the filesystem; of the kernel's making in a start, of a test's in a test.
trait Steps {
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
fn mount_checked(steps: &mut impl Steps, now: u64) -> Result<Option<String>, Unfit> {
    let before = match steps.superblock() {
        Err(lost) if lost.problem == Problem::Damaged => {
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
    Ok(None)
}

fn check(steps: &mut impl Steps, how: How, why: &dyn Display) -> Result<Option<String>, Unfit> {
    let (problem, said) = match steps.check(how, why)? {
        Checked::Clean => return Ok(None),
        Checked::Repaired => return Ok(Some(format!("{why}; e2fsck repaired it"))),
        Checked::Damaged(said) => (Problem::Damaged, said),
        Checked::NotChecked(said) => (Problem::Unusable, said),
    };
    let why = format_args!("{why}; e2fsck -p did not repair it ({said})");
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
            Err(failure) => (Problem::Unusable, failure.reason()),
            Ok(block) => {
                let (problem, said) = match steps.check(How::ByCopy(block), &why)? {
                    Checked::Clean | Checked::Repaired => {
                        return Ok(format!(
                            "{why}; e2fsck restored it from the copy in block {block}"
                        ));
                    }
                    Checked::Damaged(said) => (Problem::Damaged, said),
                    Checked::NotChecked(said) => (Problem::Unusable, said),
                };
                (
                    problem,
                    format!("e2fsck -p by the copy in block {block}: {said}"),
                )
            }
        };
        if worst.problem == Problem::Damaged {
            let failure = Failure::new("restoring", "state", format_args!("{why}; {said}"));
            worst = Unfit { problem, failure };
        }
    }
    Err(worst)
}

/// The partition, and where it is to be mounted.
struct Filesystem<'a> {
    name: &'a str,
    device: String,
    target: &'a Path,
    root: &'a Path,
    watchdog: Option<&'a Watchdog>,
}

impl Steps for Filesystem<'_> {
    fn superblock(&mut self) -> Result<Superblock, Unfit> {
        superblock(self.name, ext4::parse).map(|(superblock, _)| superblock)
    }

    fn mounted_superblock(&mut self) -> Option<Superblock> {
        let (superblock, _) = superblock(self.name, ext4::parse_mounted).ok()?;
        Some(superblock)
    }

    fn copies(&mut self) -> Result<Vec<Result<u64, Failure>>, Failure> {
        let mut device = BlockDevice::open(self.name, false)?;
        let mut found = Vec::new();
        for block in ext4::copies(device.size()) {
            let mut bytes = [0; ext4::BLOCK as usize];
            match device.read_at(block * ext4::BLOCK, &mut bytes) {
                Ok(()) if ext4::parse_copy(&bytes).is_ok() => found.push(Ok(block)),
                Ok(()) => {}
                Err(error) => found.push(Err(Failure::new(
                    "reading",
                    format_args!("block {block} of {}", self.device),
                    error,
                ))),
            }
        }
        Ok(found)
    }

    fn check(&mut self, how: How, why: &dyn Display) -> Result<Checked, Failure> {
        console::log(format_args!("checking {}: {why}", self.device));
        fsck::check(&self.device, how, self.root, self.watchdog)
    }

    fn mount(&mut self) -> Result<(), Failure> {
        // A replay, and what was deleted while it was open, can take long.
        watchdog::kept(self.watchdog, fsck::LIMIT, || {
            mount(
                self.device.as_str(),
                self.target,
                "ext4",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
                c"errors=remount-ro",
            )
        })
        .context("mounting", format_args!("state ({})", self.device))?;
        let kept = watchdog::kept(self.watchdog, fsck::LIMIT, || keeps(self.target));
        if kept.is_err() {
            // What is mounted over it serves as well.
            let _ = unmount(self.target, UnmountFlags::DETACH);
        }
        kept.context("writing to", format_args!("state ({})", self.device))
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        unmount(self.target, UnmountFlags::empty()).context("unmounting", self.target.display())
    }
}

/// Whether the filesystem mounted at `target` keeps what is written. The kernel mounts one whose journal cannot be
/// written, and stops at the first write: then nothing that it holds can be read any more either, and the machine could
/// not be reached. The write is one that needs no room.
fn keeps(target: &Path) -> io::Result<()> {
    let folder = File::open(target)?;
    folder.set_modified(SystemTime::now())?;
    folder.sync_all()
}

fn try_mount(
    name: &str,
    target: &Path,
    root: &Path,
    watchdog: Option<&Watchdog>,
) -> Result<State, Unfit> {
    let mut filesystem = Filesystem {
        name,
        device: format!("/dev/{name}"),
        target,
        root,
        watchdog,
    };
    let repaired = mount_checked(&mut filesystem, now())?;
    // Read again: what was replayed may have been a growth.
    let grown = superblock(name, ext4::parse_mounted).and_then(|(superblock, size)| {
        let growing = || grow(target, superblock, size);
        Ok(watchdog::kept(watchdog, fsck::LIMIT, growing)?)
    });
    let mut reason = repaired.clone();
    let grown = match grown {
        Ok(grown) => grown,
        Err(Unfit { failure, .. }) => {
            console::announce(failure.reason());
            reason.get_or_insert(failure.reason());
            false
        }
    };
    let status = if repaired.is_some() {
        Status::Repaired
    } else {
        Status::Ok
    };
    Ok(State {
        status,
        reason,
        grown,
    })
}

/// Seconds since 1970, as far as this machine knows.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// Grows the mounted filesystem to its partition's size.
fn grow(target: &Path, now: Superblock, size: u64) -> Result<bool, Failure> {
    let blocks = size / now.block_size;
    if blocks
        .saturating_sub(now.blocks)
        .saturating_mul(now.block_size)
        < WORTH
    {
        return Ok(false);
    }
    let folder = File::open(target).context("opening", target.display())?;
    sys::ext4_resize(folder.as_fd(), blocks)
        .context("growing the filesystem at", target.display())?;
    Ok(true)
}

/// The machine's id: what `state` has, or a new one, which is kept there. The flag says that it is new; a failure that
/// it could not be kept, which leaves it good for this start.
///
/// `unique` is anything that differs between machines and starts. It is mixed in because the kernel may not have
/// gathered randomness yet, and waiting for it takes seconds on a machine without a source of it. An id has to be
/// unique, not secret.
#[must_use]
pub fn machine_id(folder: &Path, unique: &[u8]) -> (String, bool, Option<Failure>) {
    let path = folder.join("machine-id");
    if let Ok(text) = fs::read_to_string(&path)
        && is_machine_id(text.trim())
    {
        return (text.trim().to_owned(), false, None);
    }
    let mut random = [0u8; 32];
    // Without any randomness `unique` has to do.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::INSECURE);
    let mut mixed = random.to_vec();
    mixed.extend_from_slice(unique);
    let mut bytes = Digest::of(&mixed).0;
    // A UUID of version 4 (RFC 9562) without its dashes, as machine-id(5) wants.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let id: String = bytes
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let kept =
        keep(&path, &format!("{id}\n")).context("keeping the machine's id in", path.display());
    (id, true, kept.err())
}

/// Writes a file so that after a power cut it is there whole or not at all.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()?;
    // Not waited for: should the name be lost to a power cut, the next start is the first one again.
    fs::rename(&draft, path)
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

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
                problem: Problem::Damaged,
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
    ) -> (Vec<String>, Result<Option<String>, Problem>) {
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
        assert_eq!((steps.len(), outcome), (0, Err(Problem::Damaged)));
        let (steps, outcome) = lost(&[Some(1), Some(2)], damaged);
        assert_eq!((steps.len(), outcome), (2, Err(Problem::Damaged)));
        let (steps, outcome) = lost(&[Some(1), Some(2)], not_checked);
        assert_eq!((steps.len(), outcome), (2, Err(Problem::Unusable)));
        let (_, outcome) = lost(&[Some(1), None, Some(2)], damaged);
        assert_eq!(outcome, Err(Problem::Unusable), "one cannot be read");
        let (_, outcome) = lost(&[None], repaired);
        assert_eq!(outcome, Err(Problem::Unusable));

        let unfit = |checks, mounts: &[bool]| {
            let mut fake = fake(&[(1, false)], mounts);
            fake.checks = checks;
            mount_checked(&mut fake, 0).unwrap_err().problem
        };
        assert_eq!(unfit(damaged, &[false]), Problem::Damaged);
        assert_eq!(unfit(not_checked, &[false]), Problem::Unusable);
        assert_eq!(
            unfit(|_| Checked::Clean, &[false, false]),
            Problem::Unusable
        );
    }

    #[test]
    fn the_machine_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let (first, new, failure) = machine_id(folder.path(), b"");
        assert!(new && failure.is_none() && is_machine_id(&first), "{first}");
        assert_eq!(machine_id(folder.path(), b""), (first, false, None));
    }

    #[test]
    fn a_damaged_machine_id_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("machine-id"), "uninitialized\n").unwrap();
        assert!(machine_id(folder.path(), b"").1);
    }

    #[test]
    fn an_id_that_cannot_be_kept_is_still_an_id() {
        let (id, new, failure) = machine_id(Path::new("/nonexistent"), b"");
        assert!(new && is_machine_id(&id) && failure.is_some());
    }
}
