//! Recovery that was started by the loader itself, and that nobody uses, starts the machine again.
//!
//! What kept the slots from starting may have gone: a disk that was slow to appear, a power supply that failed many
//! times in a row. The loader then goes on with the next of A, B and recovery. Recovery that was asked for stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::time::Instant;

use super::Service;
use super::auto_install::AutoInstall;
use super::step::idle::{self, Installation, Next};
use crate::os::lock::Lock;
use crate::os::paths::Paths;

impl Service<'_> {
    /// Whether this is recovery, and nobody asked for it.
    pub(super) fn is_recovery_by_itself(&self) -> bool {
        self.machine.slot().is_none() && !self.machine.was_asked_for()
    }

    /// Recovery that nobody asked for: what is done about it while nobody is there.
    pub(super) async fn look_after_idle_recovery(
        &mut self,
        idle: &mut Idle,
        mut install: Option<&mut AutoInstall>,
    ) {
        let installation = match &mut install {
            Some(install) => self.installation(install).await,
            None => Installation::NotWanted,
        };
        // After ours has ended, an installation that runs is somebody's.
        let ours = matches!(installation, Installation::UnderWay(_));
        idle.look(&self.machine.paths(), ours);
        match idle::next(installation, idle.since.elapsed(), self.machine.pace) {
            Next::Wait => {}
            Next::Install => {
                if let Some(install) = install {
                    self.begin_to_install(install);
                }
            }
            Next::StartInstalled => self.reboot().await,
            Next::TrySlots => {
                eprintln!("bootctl: nobody uses the recovery system; trying the slots again");
                self.reboot().await;
            }
        }
    }
}

/// Since when nobody has used the machine.
pub(super) struct Idle {
    since: Instant,
    typed: BTreeMap<PathBuf, SystemTime>,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            typed: BTreeMap::new(),
        }
    }

    /// Looks whether somebody has typed since the last look, or somebody's installation runs; `ours` says that the one
    /// that runs is the service's own.
    fn look(&mut self, paths: &Paths, ours: bool) {
        let typed = last_typed(&paths.at("/dev"));
        if typed != self.typed || (!ours && Lock::is_held(&paths.install_lock())) {
            self.typed = typed;
            self.since = Instant::now();
        }
    }
}

/// When each terminal was last typed at: the kernel notes it as the time of the last access.
fn last_typed(dev: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let entries = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries(dev.to_owned())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("tty"))
        .chain(entries(dev.join("pts")))
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.accessed().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_is_left_alone_when_nobody_types_or_installs() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(paths.at("/dev/pts")).unwrap();
        let tty = std::fs::File::create(paths.at("/dev/ttyS0")).unwrap();
        let mut idle = Idle::new();
        let mut wait = async |seconds| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            idle.look(&paths, false);
            idle.since.elapsed() >= idle::LEFT_ALONE
        };
        let longer = idle::LEFT_ALONE.as_secs();
        assert!(
            !wait(longer - 300).await,
            "the first look sees the terminals"
        );
        assert!(!wait(longer - 300).await);
        let times = std::fs::FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH);
        tty.set_times(times).unwrap();
        assert!(!wait(longer - 300).await, "somebody typed");
        let install = Lock::wait_for(&paths.install_lock(), "install x").unwrap();
        assert!(!wait(longer).await, "somebody installs");
        drop(install);
        // What another test starts holds the files of this process until it has replaced itself.
        while Lock::is_held(&paths.install_lock()) {
            std::thread::yield_now();
        }
        assert!(!wait(longer - 100).await);
        assert!(wait(100).await);
    }
}
