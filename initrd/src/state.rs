//! The `state` filesystem: checked, mounted, grown. Never formatted.
//!
//! Whatever is wrong with it, the machine still starts: degraded, with /state in memory and the reason kept.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boot_core::{Device, Digest};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use crate::block::BlockDevice;
use crate::console;
use crate::disk;
use crate::ext4::{self, Due, Superblock};
use crate::failure::{Context, Failure};
use crate::sys;
use crate::watchdog::{self, Watchdog};

/// Longest time for a filesystem check. A check of a terabyte after a power cut takes minutes, not hours.
const CHECK_LIMIT: Duration = Duration::from_secs(20 * 60);
/// What e2fsck said, kept for the running system.
const CHECK_LOG: &str = "/run/sternpost/e2fsck.log";
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
    Degraded,
}

impl Status {
    /// The word in boot.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Repaired => "repaired",
            Self::Degraded => "degraded",
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
    let tried = name
        .context("looking for the partition", "state")
        .and_then(|name| try_mount(name, target, root, watchdog));
    match tried {
        Ok(state) => Ok(state),
        Err(failure) => {
            console::announce(format_args!(
                "{}; going on with /state in memory, what is written there is lost at the next restart",
                failure.reason()
            ));
            mount_memory(target)?;
            Ok(State {
                status: Status::Degraded,
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

fn superblock(name: &str) -> Result<(Superblock, u64), Failure> {
    let mut device = BlockDevice::open(name, false)?;
    let start = disk::read_start(&mut device, ext4::NEEDED)
        .context("reading the superblock of", device.path.display())?;
    let superblock = ext4::parse(&start)
        .context("reading", format_args!("state ({})", device.path.display()))?;
    Ok((superblock, device.size()))
}

/// What can be done with the filesystem; of the kernel's making in a start, of a test's in a test.
trait Steps {
    fn superblock(&mut self) -> Result<Superblock, Failure>;
    fn check(&mut self, why: &dyn Display) -> Result<Option<String>, Failure>;
    fn mount(&mut self) -> Result<(), Failure>;
    fn unmount(&mut self) -> Result<(), Failure>;
}

/// Checks what has to be checked and mounts. `Some` says what was repaired.
///
/// `state` is to be checked before it is mounted, and it is: every start reads the superblock and asks what `e2fsck -p`
/// would ask ([`Superblock::check_due`]). Only if the answer calls for more does e2fsck run, from the verified root. A
/// pulled plug alone does not: all that `e2fsck -p` does then is to replay the journal, and so does the kernel when it
/// mounts. Two things only show while the journal is replayed, and bring e2fsck in after all: an error that the journal
/// had noted and the superblock not yet, and a journal that the kernel cannot replay. In both cases nothing has used
/// the filesystem in between.
fn mount_checked(steps: &mut impl Steps, now: u64) -> Result<Option<String>, Failure> {
    let before = steps.superblock()?;
    if let Some(due) = before.check_due(now) {
        let repaired = steps.check(&due)?;
        steps.mount()?;
        return Ok(repaired);
    }
    if let Err(failure) = steps.mount() {
        let repaired = steps.check(&failure.reason())?;
        steps.mount()?;
        return Ok(repaired);
    }
    let after = before.replay.then(|| steps.superblock()).transpose()?;
    if let Some(due @ Due::Error) = after.and_then(|after| after.check_due(now)) {
        steps.unmount()?;
        let repaired = steps.check(&due)?;
        steps.mount()?;
        return Ok(repaired);
    }
    Ok(None)
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
    fn superblock(&mut self) -> Result<Superblock, Failure> {
        superblock(self.name).map(|(superblock, _)| superblock)
    }

    fn check(&mut self, why: &dyn Display) -> Result<Option<String>, Failure> {
        console::log(format_args!("checking {}: {why}", self.device));
        check(&self.device, self.root, self.watchdog)
    }

    fn mount(&mut self) -> Result<(), Failure> {
        // A replay, and what was deleted while it was open, can take long.
        watchdog::kept(self.watchdog, CHECK_LIMIT, || {
            mount(
                self.device.as_str(),
                self.target,
                "ext4",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME,
                c"errors=remount-ro",
            )
        })
        .context("mounting", format_args!("state ({})", self.device))
    }

    fn unmount(&mut self) -> Result<(), Failure> {
        unmount(self.target, UnmountFlags::empty()).context("unmounting", self.target.display())
    }
}

fn try_mount(
    name: &str,
    target: &Path,
    root: &Path,
    watchdog: Option<&Watchdog>,
) -> Result<State, Failure> {
    let mut filesystem = Filesystem {
        name,
        device: format!("/dev/{name}"),
        target,
        root,
        watchdog,
    };
    let repaired = mount_checked(&mut filesystem, now())?;
    // Read again: what was replayed may have been a growth.
    let grown = superblock(name).and_then(|(superblock, size)| {
        watchdog::kept(watchdog, CHECK_LIMIT, || grow(target, superblock, size))
    });
    let mut reason = repaired.clone();
    let grown = match grown {
        Ok(grown) => grown,
        Err(failure) => {
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

/// Runs e2fsck of the verified root. `Some` says what it repaired.
fn check(
    device: &str,
    root: &Path,
    watchdog: Option<&Watchdog>,
) -> Result<Option<String>, Failure> {
    let dev = root.join("dev");
    mount_bind("/dev", &dev).context("binding /dev to", dev.display())?;
    let outcome = watchdog::kept(watchdog, CHECK_LIMIT, || run_check(device, root));
    // Left mounted it would only hide what is moved there later.
    unmount(&dev, UnmountFlags::DETACH).context("unmounting", dev.display())?;
    outcome
}

/// What the check said last, for people.
fn last_words() -> String {
    let said = fs::read_to_string(CHECK_LOG).unwrap_or_default();
    said.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("it said nothing")
        .to_owned()
}

fn run_check(device: &str, root: &Path) -> Result<Option<String>, Failure> {
    let log = File::create(CHECK_LOG).context("making", CHECK_LOG)?;
    let errors = log.try_clone().context("making", CHECK_LOG)?;
    let mut child = in_root(root, "/usr/sbin/e2fsck", &["-p", device])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("starting e2fsck on", device)?;
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for e2fsck on", device)? {
            break status;
        }
        if started.elapsed() > CHECK_LIMIT {
            // It is about to be left alone; whether the signal arrives changes nothing.
            let _ = child.kill();
            return Err(Failure::new(
                "checking",
                device,
                format_args!("e2fsck was not done after {CHECK_LIMIT:?}"),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    match status.code() {
        Some(0) => Ok(None),
        // 1: errors corrected; 2: and restart if it was mounted, which it was not.
        Some(1..=3) => Ok(Some(format!("e2fsck repaired {device}"))),
        Some(code) => Err(Failure::new(
            "checking",
            device,
            format_args!(
                "e2fsck -p did not repair it (exit code {code}: {})",
                last_words()
            ),
        )),
        None => Err(Failure::new("checking", device, "e2fsck was killed")),
    }
}

/// Argument with which this program starts another one inside a root; see [`exec_in_root`].
pub const IN_ROOT: &str = "--in-root";

/// A command that runs inside `root`. `Command` has no chroot of its own without unsafe code, so this program starts
/// itself, changes root, and becomes the other.
fn in_root(root: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(IN_ROOT)
        .arg(root)
        .arg(program)
        .args(arguments)
        .env_clear();
    command
}

/// The other half of [`in_root`]: `arguments` are root, program, its arguments.
///
/// # Errors
/// Always, if it returns.
pub fn exec_in_root(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> io::Error {
    use std::os::unix::process::CommandExt;
    let (Some(root), Some(program)) = (arguments.next(), arguments.next()) else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    if let Err(error) = rustix::process::chroot(Path::new(&root)) {
        return error.into();
    }
    if let Err(error) = rustix::process::chdir("/") {
        return error.into();
    }
    Command::new(program).args(arguments).env_clear().exec()
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
        superblocks: Vec<Superblock>,
        mounts: Vec<bool>,
        done: Vec<String>,
    }

    impl Steps for Fake {
        fn superblock(&mut self) -> Result<Superblock, Failure> {
            Ok(self.superblocks.remove(0))
        }
        fn check(&mut self, why: &dyn Display) -> Result<Option<String>, Failure> {
            self.done.push(format!("check: {why}"));
            Ok(Some("repaired".into()))
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

    fn done(superblocks: &[(u8, bool)], mounts: &[bool]) -> (Vec<String>, bool) {
        let mut fake = Fake {
            superblocks: superblocks
                .iter()
                .map(|(state, replay)| superblock_with(*state, *replay))
                .collect(),
            mounts: mounts.to_vec(),
            done: Vec::new(),
        };
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
        assert_eq!(steps, ["check: the kernel noted an error in it", "mount"]);
    }

    #[test]
    fn an_error_that_the_journal_brings_up_is_checked_before_anything_uses_it() {
        let (steps, _) = done(&[(1, true), (3, false)], &[true, true]);
        let check = "check: the kernel noted an error in it";
        assert_eq!(steps, ["mount", "unmount", check, "mount"]);
    }

    #[test]
    fn what_cannot_be_mounted_is_checked_once() {
        let (steps, repaired) = done(&[(1, true)], &[false, true]);
        assert!(repaired && steps.len() == 3, "{steps:?}");
        assert_eq!((steps[0].as_str(), steps[2].as_str()), ("mount", "mount"));
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
