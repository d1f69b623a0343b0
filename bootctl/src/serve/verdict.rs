//! What is done about a verdict.

use boot_core::event::EventKind;
use boot_core::{Digest, Slot};

use super::Service;
use super::gate::Verdict;
use super::report::{Phase, RootRead};
use crate::clock;
use crate::failure::{Failure, Result};
use crate::profiles;

/// A good slot is not rebooted by the gate more often than this.
const REBOOT_GOOD_EVERY: i64 = 6 * 3600;

impl Service<'_> {
    /// Commits a verdict and acts on it.
    pub(super) async fn conclude(
        &mut self,
        slot: Slot,
        verdict: Verdict,
        reboots_good: bool,
    ) -> Result<()> {
        self.report.doing = None;
        self.report.verdict_ms = u64::try_from(clock::since_boot().as_millis()).ok();
        let (lock, mut control) = self.control().await?;
        let entry = control.record()?.slot(slot).clone();
        let reason = match verdict {
            Verdict::Healthy => {
                let why = format!(
                    "healthy {} s after the service started",
                    self.elapsed().as_secs()
                );
                if !entry.is_good() {
                    let digest = self.booted_digest(entry.digest)?;
                    control.mark_good(slot, &digest, &why)?;
                }
                eprintln!("bootctl: {why}");
                self.report.verdict = Some("healthy".into());
                self.report.reason = Some(why);
                self.report.phase = Phase::Healthy;
                self.show();
                return Ok(());
            }
            Verdict::Unhealthy(reason) => reason,
        };
        eprintln!("bootctl: unhealthy: {reason}");
        self.report.verdict = Some("unhealthy".into());
        self.report.reason = Some(reason.clone());
        self.report.phase = Phase::Degraded;
        self.show();
        if entry.is_good() && self.report.root != RootRead::Damaged {
            control.event(
                EventKind::UNHEALTHY,
                Some(slot.into()),
                entry.digest,
                &reason,
            );
            drop((control, lock));
            self.degrade(reason);
            if reboots_good && self.may_reboot_good() {
                self.reboot().await;
            }
            return Ok(());
        }
        let stay = match self.implausible_clock() {
            Some(why) => Some(format!("{why}; not going back for that")),
            None => crate::fallback::startable(self.machine, &control.record()?, slot.other())
                .err()
                .map(|e| format!("there is no other slot to go back to: {e}")),
        };
        if let Some(stay) = stay {
            control.event(
                EventKind::DEGRADED,
                Some(slot.into()),
                entry.digest,
                &format!("{reason}; stays up: {stay}"),
            );
            drop((control, lock));
            self.degrade(reason);
            self.degrade(stay);
            return Ok(());
        }
        let digest = self.booted_digest(entry.digest)?;
        control.give_up(slot, &digest, &reason)?;
        drop((control, lock));
        self.report.phase = Phase::GoingBack;
        self.show();
        self.reboot().await;
        Ok(())
    }

    /// The manifest that runs, which the record must have for the slot.
    fn booted_digest(&self, recorded: Digest) -> Result<Digest> {
        match crate::commands::booted_digest(self.machine) {
            Some(booted) if booted != recorded => Err(Failure::refused(format!(
                "manifest {booted} is running, the record has {recorded} for this slot"
            ))),
            _ => Ok(recorded),
        }
    }

    fn implausible_clock(&self) -> Option<String> {
        let paths = self.machine.paths();
        if paths.at("/run/systemd/timesync/synchronized").exists() {
            return None;
        }
        profiles::applied(&paths)?.clock?.implausible
    }

    /// Whether the gate may reboot a good slot now; remembers that it does.
    fn may_reboot_good(&self) -> bool {
        let path = self.machine.paths().state("gate-rebooted");
        let now = clock::now();
        if clock::saved(&path).is_some_and(|last| (now - last).abs() < REBOOT_GOOD_EVERY) {
            return false;
        }
        crate::machine::write_whole(&path, now.to_string().as_bytes(), 0o644, true).is_ok()
    }
}
