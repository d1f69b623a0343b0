//! The `state` filesystem: checked, mounted, grown. Never formatted.
//!
//! Whatever is wrong with it, the machine still starts: degraded, with /state in memory, the reason kept and nothing on
//! the partition touched that a repair without loss would not touch. What to do about it is for the running system.

mod check;
pub mod e2fsck;
pub mod ext4;
mod filesystem;
mod source;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use boot_core::boot_report::{StateProblem, StateReport, StateStatus};
use rustix::mount::{MountFlags, mount};

use self::check::mount_checked;
use self::ext4::Superblock;
use self::filesystem::{Filesystem, superblock};
use self::source::StateSource;
use crate::failure::{Context, Failure};
use crate::watchdog::{self, Watchdog};
use crate::{console, sys};

/// Growing by less than this is not worth the writes.
const WORTH: u64 = 1 << 20;

/// Why `state` is not mounted.
#[derive(Debug)]
struct Unfit {
    problem: StateProblem,
    failure: Failure,
}

impl From<Failure> for Unfit {
    /// Damage has to be shown; everything else is taken for something that may pass.
    fn from(failure: Failure) -> Self {
        Self {
            problem: StateProblem::Unusable,
            failure,
        }
    }
}

/// What became of `state`.
#[derive(Debug, Clone)]
pub struct State {
    pub report: StateReport,
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
    let opened = StateSource::on(name).open();
    match opened.and_then(|device| try_mount(&device, target, root, watchdog)) {
        Ok(state) => Ok(state),
        Err(Unfit { problem, failure }) => {
            console::announce(format_args!(
                "{}; going on with /state in memory, what is written there is lost at the next restart",
                failure.reason()
            ));
            mount_memory(target)?;
            Ok(State {
                report: StateReport {
                    status: StateStatus::Degraded,
                    problem: Some(problem),
                    reason: Some(failure.reason()),
                },
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
        Ok(watchdog::with_pings(watchdog, e2fsck::LIMIT, growing)?)
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
        StateStatus::Repaired
    } else {
        StateStatus::Ok
    };
    Ok(State {
        report: StateReport {
            status,
            problem: None,
            reason,
        },
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
