//! After the verdict.

use boot_core::Slot;
use tokio::time::{Instant, sleep_until};

use super::auto_install::AutoInstall;
use super::idle_recovery::Idle;
use super::state::ERASE_AFTER;
use super::step::{Phase, Seen};
use super::{LOOK_AFTER, LOOK_DEGRADED, SAVE_CLOCK, Service, root_reads};
use crate::bring_up::lanes;
use crate::failure::Code;
use crate::health::observe::observe;
use crate::machine::clock;

impl Service<'_> {
    /// After the verdict: keeps the report true and the clock saved, and notices when a machine that
    /// stayed up comes right after all.
    pub(super) async fn steady_state(&mut self, silent: Vec<Slot>) {
        let slot = self.machine.slot();
        let mut saved = Instant::now();
        let mut idle = self.is_recovery_by_itself().then(Idle::new);
        let mut install = idle
            .as_ref()
            .and_then(|_| AutoInstall::by_profile(self.machine));
        self.look_at_silent(silent).await;
        let mut erase = None;
        if let Some(slot) = slot
            && self.erases_state(slot)
        {
            erase = Some(Instant::now() + ERASE_AFTER);
            self.reporter.degrade(format!(
                "the profile has a damaged state erased: that happens in {} s, unless sternpost.service is stopped",
                ERASE_AFTER.as_secs()
            ));
        }
        if let Some(slot) = slot {
            self.claim_state(slot);
        }
        let mut loader_failed = false;
        loop {
            if erase.is_some_and(|due| Instant::now() >= due) {
                erase = match self.erase_state().await {
                    Err(e) if e.code == Code::Locked => Some(Instant::now() + ERASE_AFTER),
                    Err(e) => {
                        self.reporter.degrade(e.to_string());
                        None
                    }
                    Ok(()) => None,
                };
            }
            if let Some(idle) = &mut idle {
                self.look_after_idle_recovery(idle, install.as_mut()).await;
            }
            if let Some(slot) = slot {
                self.restart_for_state(slot).await;
                // Once a start: a disk that refuses now is not written to every few minutes.
                loader_failed = loader_failed || !self.go_on_with_loader_update(slot).await;
            }
            let degraded = self.reporter.report.known.phase == Phase::Degraded;
            let mut findings = self.reporter.report.findings.iter();
            let unwell = findings.any(|finding| !finding.ok);
            let pause = if degraded || unwell || idle.is_some() {
                LOOK_DEGRADED
            } else {
                LOOK_AFTER
            };
            let next = Instant::now() + self.machine.pace.of(pause);
            let ended = loop {
                tokio::select! {
                    ended = root_reads::ended(&mut self.root_scan) => break Some(ended),
                    () = lanes::changed(&mut self.bring_up) => {}
                    () = sleep_until(next) => break None,
                }
                self.brought_up();
                self.reporter.show();
            };
            self.pulse.beat();
            if let Some(slot) = slot {
                if let Some(ended) = ended {
                    self.follow(slot, Seen::Root(ended)).await;
                }
                self.look(slot).await;
            } else {
                // Recovery: nothing is asked of it but to be up.
                self.reporter.report.saw(Vec::new());
                self.reporter.show();
            }
            if saved.elapsed() >= SAVE_CLOCK {
                saved = Instant::now();
                clock::save(&self.machine.paths());
                if let Some(slot) = slot {
                    self.claim_state(slot);
                }
            }
        }
    }

    async fn look(&mut self, slot: Slot) {
        self.brought_up();
        let Some(plan) = &self.chosen else { return };
        let profile_holds = plan.problem.is_none();
        let health = &plan.rendered.health;
        let lanes = &self.reporter.report.lanes;
        let mut seen = observe(health, lanes, &mut self.systemd, &self.api, || {
            self.pulse.beat()
        })
        .await;
        let well = seen.findings.iter().all(|f| f.ok);
        // As the record has it now: on trial or not, a start that could not read it knows nothing.
        if self.machine.contradiction().is_none() && self.is_good(slot) {
            self.baseline.keep(&seen.findings);
        } else {
            self.baseline.compare(&mut seen.findings);
        }
        self.reporter.report.saw(seen.findings);
        let looked = Seen::Looked {
            well,
            profile_holds,
        };
        self.follow(slot, looked).await;
    }
}
