//! Has a verdict committed ([`crate::boot::verdict`]), again where that fails. What follows from it is decided in
//! [`super::step`] (`Seen::Concluded`).

use std::time::Duration;

use boot_core::Slot;
use boot_core::record::Record;
use tokio::time::sleep;

use super::Service;
use super::step::{NotWritten, Seen};
use crate::boot::verdict::{Settled, Verdict};
use crate::boot::{self, slot_check};
use crate::failure::{Code, Result};
use crate::machine::clock::implausible;
use crate::os::files::write_durable;
use crate::os::{clock, console};

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
    /// Commits a verdict; what that came to. There is none until it is committed: a service that dies
    /// before is started again without one, and comes to it again.
    pub(super) async fn conclude(&mut self, slot: Slot, verdict: Verdict) -> Option<Seen> {
        self.reporter.report.doing = None;
        if let Verdict::Unhealthy(reason) = &verdict
            && self.going_down().await
        {
            // Stopped units and cancelled jobs say nothing about the image.
            eprintln!("bootctl: no verdict, the machine is going down: {reason}");
            return None;
        }
        // The event and the report say the same.
        let reason = match &verdict {
            Verdict::Healthy => self.healthy(),
            Verdict::Unhealthy(reason) => reason.clone(),
        };
        let mut pauses = PAUSES.iter();
        let committed = loop {
            let error = match self.commit(slot, &verdict, &reason).await {
                Err(e) if e.code == Code::Failed => e,
                other => break other,
            };
            let Some(pause) = pauses.next().map(|pause| self.machine.pace.of(*pause)) else {
                break Err(error);
            };
            eprintln!("bootctl: {error}; trying again in {pause:?}");
            self.pulse.beat();
            sleep(pause).await;
        };
        Some(Seen::Concluded {
            verdict,
            reason,
            came_to: committed.map_err(|error| NotWritten {
                may_leave: error.code == Code::Failed && self.may_leave_untold(slot),
                why: error.to_string(),
            }),
        })
    }

    /// Says it where somebody may stand.
    pub(super) fn announce(&mut self, slot: Slot, what: &str) {
        self.reporter.report.verdict_ms = u64::try_from(clock::since_boot().as_millis()).ok();
        self.reporter.show();
        let image = self.machine.image.as_ref();
        let version = image.map_or("?", |image| &image.version);
        let line = format!("slot {slot}, version {version}: {what}");
        console::announce(&self.machine.paths(), &line);
    }

    fn healthy(&self) -> String {
        format!(
            "healthy {} s after the service started",
            self.reporter.elapsed().as_secs()
        )
    }

    /// Writes what follows from a verdict into the boot state.
    async fn commit(&mut self, slot: Slot, verdict: &Verdict, reason: &str) -> Result<Settled> {
        let mut control = self.control().await?;
        let known = &self.reporter.report.known;
        let booted = known.booted(slot, Some(self.machine.boot.manifest_digest));
        control.commit_verdict(&booted, verdict, reason, |record| self.stays(record, slot))
    }

    /// Why the machine stays up in a slot that is not well, if it does.
    fn stays(&self, record: &Record, slot: Slot) -> Option<String> {
        self.reporter
            .report
            .known
            .stays(implausible(&self.machine.paths()), || {
                slot_check::startable(self.machine, record, slot.other())
            })
    }

    /// Whether a slot whose verdict cannot be written is left all the same: one on trial is, where
    /// there is another, because the loader counts its tries.
    fn may_leave_untold(&self, slot: Slot) -> bool {
        boot::view(self.machine)
            .and_then(|mut control| control.record())
            .is_ok_and(|record| !record.slot(slot).is_good() && self.stays(&record, slot).is_none())
    }

    /// Whether the gate may reboot a good slot now; remembers that it does.
    pub(super) fn may_reboot_good(&self) -> bool {
        let path = self.machine.paths().state("gate-rebooted");
        let now = clock::now();
        if clock::saved(&path).is_some_and(|last| (now - last).abs() < REBOOT_GOOD_EVERY) {
            return false;
        }
        write_durable(&path, now.to_string().as_bytes(), 0o644).is_ok()
    }
}
