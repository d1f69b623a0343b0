//! e2fsck of the verified root, run on `state`. Only repairs that lose nothing are asked of it (`-p`).

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::failure::{Context, Failure};
use crate::watchdog::{self, Watchdog};

/// Longest time for a filesystem check. A check of a terabyte after a power cut takes minutes, not hours.
pub const LIMIT: Duration = Duration::from_secs(20 * 60);
/// What e2fsck said last, kept for the running system.
const LOG: &str = "/run/sternpost/e2fsck.log";

/// How to look at a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// As far as its superblock asks for.
    AsItSays,
    /// In whole, whatever the superblock says.
    Whole,
    /// In whole, by the copy of the superblock in this block of 4096 bytes; the superblock is written anew.
    ByCopy(u64),
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Nothing was wrong.
    Clean,
    /// Something was, and is not any more.
    Repaired,
    /// Something is wrong that cannot be repaired without loss; its last words.
    Damaged(String),
    /// There was no filesystem that it could check, or it could not get at it; its last words.
    NotChecked(String),
}

/// Checks `device` with the e2fsck of `root`.
///
/// # Errors
/// It could not be run to its end.
pub fn check(
    device: &str,
    how: How,
    root: &Path,
    watchdog: Option<&Watchdog>,
) -> Result<Checked, Failure> {
    let dev = root.join("dev");
    mount_bind("/dev", &dev).context("binding /dev to", dev.display())?;
    let outcome = watchdog::with_pings(watchdog, LIMIT, || run(device, how, root));
    // Left mounted it would only hide what is moved there later.
    unmount(&dev, UnmountFlags::DETACH).context("unmounting", dev.display())?;
    outcome
}

/// e2fsck's arguments.
fn arguments(device: &str, how: How) -> Vec<String> {
    let mut arguments = vec!["-p".to_owned()];
    match how {
        How::AsItSays => {}
        How::Whole => arguments.push("-f".into()),
        How::ByCopy(block) => {
            arguments.extend(["-b", &block.to_string(), "-B", "4096"].map(str::to_owned))
        }
    }
    arguments.push(device.to_owned());
    arguments
}

/// What e2fsck's exit code means (e2fsck(8)).
///
/// `could_read` says whether the disk gave all that was asked for: what it did not give may be whole.
fn outcome(code: i32, could_read: impl FnOnce() -> bool, said: impl FnOnce() -> String) -> Checked {
    match code {
        0 => Checked::Clean,
        // 1: errors corrected; 2: and restart if it was mounted, which it was not.
        1..=3 => Checked::Repaired,
        4..=7 if !could_read() => Checked::NotChecked(said()),
        4..=7 => Checked::Damaged(said()),
        _ => Checked::NotChecked(format!("exit code {code}: {}", said())),
    }
}

/// Whether e2fsck says of no block that it could not be read (lib/ext2fs/ext2_err.et.in and e2fsck/ehandler.c).
fn could_read() -> bool {
    let said = fs::read_to_string(LOG).unwrap_or_default();
    !["Error reading block", "short read", "Input/output error"]
        .iter()
        .any(|words| said.contains(words))
}

/// What the check said last, for people.
fn last_words() -> String {
    last_line(&fs::read_to_string(LOG).unwrap_or_default()).to_owned()
}

/// The last line that is not a hint in parentheses, as "(i.e., without -a or -p options)" is.
fn last_line(said: &str) -> &str {
    said.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.starts_with('('))
        .unwrap_or("it said nothing")
}

fn run(device: &str, how: How, root: &Path) -> Result<Checked, Failure> {
    let log = File::create(LOG).context("making", LOG)?;
    let errors = log.try_clone().context("making", LOG)?;
    let mut child = in_root(root, "/usr/sbin/e2fsck", &arguments(device, how))
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
        if started.elapsed() > LIMIT {
            // It is about to be left alone; whether the signal arrives changes nothing.
            let _ = child.kill();
            return Err(Failure::new(
                "checking",
                device,
                format!("e2fsck was not done after {LIMIT:?}"),
            ));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    match status.code() {
        // How `in_root` says that there is no such program.
        Some(127) => Err(Failure::new("starting e2fsck on", device, last_words())),
        Some(code) => Ok(outcome(code, could_read, last_words)),
        None => Err(Failure::new("checking", device, "e2fsck was killed")),
    }
}

/// Argument with which this program starts another one inside a root; see [`exec_in_root`].
pub const IN_ROOT: &str = "--in-root";

/// A command that runs inside `root`. `Command` has no chroot of its own without unsafe code, so this program starts
/// itself, changes root, and becomes the other.
fn in_root(root: &Path, program: &str, arguments: &[String]) -> Command {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repairs_that_lose_nothing_are_asked_for() {
        let line = |how| arguments("/dev/vda10", how).join(" ");
        assert_eq!(line(How::AsItSays), "-p /dev/vda10");
        assert_eq!(line(How::Whole), "-p -f /dev/vda10");
        assert_eq!(line(How::ByCopy(32_768)), "-p -b 32768 -B 4096 /dev/vda10");
    }

    #[test]
    fn a_hint_is_not_the_last_word() {
        let said = "sda5: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n\t(i.e., without -a or -p options)\n\n";
        assert_eq!(
            last_line(said),
            "sda5: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY."
        );
        assert_eq!(last_line("\n"), "it said nothing");
    }

    #[test]
    fn what_e2fsck_did_not_get_at_is_not_damage() {
        let said = || "words".to_owned();
        assert_eq!(outcome(0, || true, said), Checked::Clean);
        assert_eq!(outcome(1, || true, said), Checked::Repaired);
        assert_eq!(outcome(4, || true, said), Checked::Damaged("words".into()));
        assert_eq!(outcome(5, || true, said), Checked::Damaged("words".into()));
        let not_read = outcome(4, || false, said);
        assert_eq!(not_read, Checked::NotChecked("words".into()));
        for code in [8, 12, 16, 32, 128] {
            assert!(matches!(
                outcome(code, || true, said),
                Checked::NotChecked(_)
            ));
        }
    }
}
