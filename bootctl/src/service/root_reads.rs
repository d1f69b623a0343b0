//! The whole root, read beside everything else after an end that was not a clean shutdown.
//!
//! Whatever the gate says meanwhile, the check goes on to its end: then the streak is cleared, or the
//! slot is given up, a good one too. `serve.json` says that it is pending, so that a service that is
//! started again begins it anew.
//!
//! And the root of a slot that was left without a word: dm-verity restarts the machine before anybody could write down
//! why, so whatever runs next looks, once, after its own verdict.

use std::time::Duration;

use boot_core::Slot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep};

use super::step::Root;
use super::{LOOK_DEGRADED, Service};
use crate::failure::{Code, Failure, Result};
use crate::os::lock::Lock;

/// How long a root of a slot that does not run is read. Recovery waits for it before it restarts the machine, and a disk
/// may never answer.
const READ_LIMIT: Duration = Duration::from_secs(30 * 60);

impl Service<'_> {
    /// Begins to read it.
    pub(super) fn read_root(&mut self, slot: Slot) {
        eprintln!("bootctl: the last run did not end in a clean shutdown; reading the whole root");
        let machine = self.machine.clone();
        self.root_scan = Some(tokio::task::spawn_blocking(move || {
            crate::boot::root_scan::of_slot(&machine, slot)
        }));
    }

    /// Reads the roots of slots whose starts ended without a word, and writes down what is found.
    pub(super) async fn look_at_silent(&mut self, silent: Vec<Slot>) {
        for slot in silent {
            eprintln!("bootctl: starts of slot {slot} ended without a word; reading its root");
            // No installation waits for that. What looks damaged may just be being written, and counts if it still does
            // when nobody writes.
            if self.damage_of(slot).await.is_none() {
                continue;
            }
            let what = format!("serve, which reads the root of slot {slot}");
            let Ok(_lock) = Lock::take(&self.machine.paths().install_lock(), &what) else {
                eprintln!(
                    "bootctl: what was read of slot {slot} does not count: somebody installs"
                );
                continue;
            };
            let Some(lost) = self.damage_of(slot).await else {
                continue;
            };
            let written = match self.control().await {
                Ok(mut control) => control.root_lost(slot, &lost),
                Err(e) => Err(e),
            };
            if let Err(e) = written {
                self.reporter.degrade(e.to_string());
            }
        }
    }

    /// Reads the root of a slot that does not run; what of it is not what was signed.
    async fn damage_of(&self, slot: Slot) -> Option<String> {
        let machine = self.machine.clone();
        let mut reading =
            tokio::task::spawn_blocking(move || crate::boot::root_scan::of_slot(&machine, slot));
        let begun = Instant::now();
        let read = loop {
            tokio::select! {
                read = &mut reading => break joined(read),
                () = sleep(LOOK_DEGRADED) => self.pulse.beat(),
            }
            if begun.elapsed() > READ_LIMIT {
                let doing = format!("reading the root of slot {slot}");
                break Err(Failure::failed("the disk takes too long").doing(doing));
            }
        };
        match read {
            Ok(()) => None,
            Err(e) if e.code == Code::Verification => Some(e.to_string()),
            Err(e) => {
                eprintln!("bootctl: {e}");
                None
            }
        }
    }
}

/// Waits for the check to end; for ever where none is under way.
pub(super) async fn ended(check: &mut Option<JoinHandle<Result<()>>>) -> Root {
    let Some(handle) = check else {
        return std::future::pending().await;
    };
    let read = joined(handle.await);
    *check = None;
    match read {
        Ok(()) => Root::Sound,
        Err(e) if e.code == Code::Verification => Root::Damaged(e.to_string()),
        Err(e) => Root::Failed(e.to_string()),
    }
}

fn joined(ended: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    ended.unwrap_or_else(|e| Err(Failure::of(e).doing("reading the whole root")))
}
