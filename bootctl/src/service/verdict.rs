//! What is done about a verdict.

use std::time::Duration;

use boot_core::Slot;
use boot_core::record::Record;
use tokio::time::{Instant, sleep};

use super::Service;
use crate::boot::verdict::{Booted, Settled, Verdict};
use crate::failure::{Code, Result};
use crate::health::report::{Phase, RootRead};
use crate::os::clock;
use crate::os::console;
use crate::profile::apply;

/// A good slot is not rebooted by the gate more often than this.
const REBOOT_GOOD_EVERY: i64 = 6 * 3600;
/// Before each further attempt to write a verdict.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

impl Service<'_> {
    /// Commits a verdict and acts on it. There is none until it is committed: a service that dies
    /// before is started again without one, and comes to it again.
    pub(super) async fn conclude(
        &mut self,
        slot: Slot,
        verdict: Verdict,
        reboots_good: bool,
    ) -> Result<()> {
        self.report.doing = None;
        if let Verdict::Unhealthy(reason) = &verdict
            && self.going_down().await
        {
            // Stopped units and cancelled jobs say nothing about the image.
            eprintln!("bootctl: no verdict, the machine is going down: {reason}");
            return Ok(());
        }
        let mut pauses = PAUSES.iter();
        let committed = loop {
            let error = match self.commit(slot, &verdict).await {
                Err(e) if e.code == Code::Failed => e,
                other => break other,
            };
            let Some(pause) = pauses.next() else {
                break Err(error);
            };
            eprintln!("bootctl: {error}; trying again in {} s", pause.as_secs());
            self.beat.set(Instant::now());
            sleep(*pause).await;
        };
        let committed = match (committed, &verdict) {
            (Err(error), Verdict::Unhealthy(_))
                if error.code == Code::Failed && self.may_leave_untold(slot) =>
            {
                self.degrade(error.to_string());
                Settled::GoingBack
            }
            (Err(error), _) => {
                // Nothing is decided; should everything hold for a while, it is tried again.
                self.report.phase = Phase::Degraded;
                self.show();
                return Err(error);
            }
            (Ok(committed), _) => committed,
        };
        self.report.verdict_ms = u64::try_from(clock::since_boot().as_millis()).ok();
        let (verdict, reason) = match verdict {
            Verdict::Healthy => ("healthy", self.healthy()),
            Verdict::Unhealthy(reason) => ("unhealthy", reason),
        };
        self.report.verdict = Some(verdict.into());
        self.report.reason = Some(reason.clone());
        self.report.phase = match committed {
            Settled::Healthy => Phase::Healthy,
            Settled::Noted | Settled::Stays(_) => Phase::Degraded,
            Settled::GoingBack => Phase::GoingBack,
        };
        self.show();
        let version = self
            .machine
            .image
            .as_ref()
            .map_or("?", |image| &image.version);
        let what = match committed {
            Settled::Healthy => "",
            Settled::GoingBack => "unhealthy, going back: ",
            Settled::Noted | Settled::Stays(_) => "unhealthy, stays up: ",
        };
        let line = format!("slot {slot}, version {version}: {what}{reason}");
        console::announce(&self.machine.paths(), &line);
        match committed {
            Settled::Healthy => {}
            Settled::Noted => {
                self.degrade(reason);
                if reboots_good && self.may_reboot_good() {
                    self.reboot().await;
                }
            }
            Settled::Stays(why) => {
                self.degrade(reason);
                self.degrade(why);
            }
            Settled::GoingBack => self.reboot().await,
        }
        Ok(())
    }

    fn healthy(&self) -> String {
        format!(
            "healthy {} s after the service started",
            self.elapsed().as_secs()
        )
    }

    /// Writes what follows from a verdict into the boot state.
    async fn commit(&mut self, slot: Slot, verdict: &Verdict) -> Result<Settled> {
        let (_lock, mut control) = self.control().await?;
        let booted = Booted {
            slot,
            digest: crate::commands::booted_digest(self.machine),
            on_trial: self.report.on_trial,
            root_damaged: self.report.root == RootRead::Damaged,
        };
        control.settle(&booted, verdict, &self.healthy(), |record| {
            self.stays(record, slot)
        })
    }

    /// Why the machine stays up in a slot that is not well, if it does.
    fn stays(&self, record: &Record, slot: Slot) -> Option<String> {
        // A damaged root has nothing to do with the clock.
        let damaged = self.report.root == RootRead::Damaged;
        match apply::implausible_clock(&self.machine.paths()) {
            Some(why) if !damaged => Some(format!("{why}; not going back for that")),
            _ => crate::boot::slot_check::startable(self.machine, record, slot.other())
                .err()
                .map(|e| format!("there is no other slot to go back to: {e}")),
        }
    }

    /// Whether a slot whose verdict cannot be written is left all the same: one on trial is, where
    /// there is another, because the loader counts its tries.
    fn may_leave_untold(&self, slot: Slot) -> bool {
        crate::commands::control(self.machine, false)
            .and_then(|mut control| control.record())
            .is_ok_and(|record| !record.slot(slot).is_good() && self.stays(&record, slot).is_none())
    }

    /// Whether the gate may reboot a good slot now; remembers that it does.
    fn may_reboot_good(&self) -> bool {
        let path = self.machine.paths().state("gate-rebooted");
        let now = clock::now();
        if clock::saved(&path).is_some_and(|last| (now - last).abs() < REBOOT_GOOD_EVERY) {
            return false;
        }
        crate::os::files::write_whole(&path, now.to_string().as_bytes(), 0o644, true).is_ok()
    }
}
