//! After the verdict.

use tokio::time::{Instant, sleep_until};

use super::auto_install::Restore;
use super::idle_recovery::Alone;
use super::state::ERASE_AFTER;
use super::{LOOK_AFTER, LOOK_DEGRADED, SAVE_CLOCK, Service, root_scan};
use crate::boot::verdict::Verdict;
use crate::bring_up::lanes;
use crate::failure::Code;
use crate::health::report::Phase;
use crate::profile::apply;
use crate::profile::choose;

impl Service<'_> {
    /// After the verdict: keeps the report true and the clock saved, and notices when a machine that
    /// stayed up comes right after all.
    pub(super) async fn keep_watching(&mut self) {
        let slot = self.machine.slot();
        let plan = slot.and_then(|_| choose::choose(&self.machine.paths()).ok());
        let mut saved = Instant::now();
        let mut alone = self.is_recovery_by_itself().then(Alone::new);
        let mut restore = alone
            .as_ref()
            .and_then(|_| Restore::by_profile(self.machine));
        let mut well_for = 0_u32;
        // The service was started again before everything had been brought up.
        if let Some(plan) = &plan
            && self.report.verdict.is_some()
            && self.bring_up.is_none()
            && self.report.brought_up.is_none()
            && plan.problem.is_none()
        {
            self.bring_up(plan);
        }
        if self.report.phase != Phase::GoingBack {
            self.look_at_silent().await;
        }
        let mut erase = None;
        if let (Some(plan), Some(slot)) = (&plan, slot)
            && self.erases_state(slot, plan)
        {
            erase = Some(Instant::now() + ERASE_AFTER);
            self.degrade(format!(
                "the profile has a damaged state erased: that happens in {} s, unless sternpost.service is stopped",
                ERASE_AFTER.as_secs()
            ));
        }
        if let Some(slot) = slot {
            self.claim_state(slot);
        }
        loop {
            if erase.is_some_and(|due| Instant::now() >= due) {
                erase = match self.erase_state().await {
                    Err(e) if e.code == Code::Locked => Some(Instant::now() + ERASE_AFTER),
                    Err(e) => {
                        self.degrade(e.to_string());
                        None
                    }
                    Ok(()) => None,
                };
            }
            if let Some(alone) = &mut alone {
                self.left_alone(alone, restore.as_mut()).await;
            }
            if let Some(slot) = slot {
                self.restart_for_state(slot).await;
            }
            self.settle_loader().await;
            let degraded = self.report.phase == Phase::Degraded;
            let unwell = self.report.findings.iter().any(|finding| !finding.ok);
            let pause = if degraded || unwell || alone.is_some() {
                LOOK_DEGRADED
            } else {
                LOOK_AFTER
            };
            let next = Instant::now() + pause;
            let ended = loop {
                tokio::select! {
                    ended = root_scan::ended(&mut self.root_check) => break Some(ended),
                    () = lanes::changed(&mut self.bring_up) => {}
                    () = sleep_until(next) => break None,
                }
                self.brought_up();
                self.show();
            };
            self.beat.set(Instant::now());
            if let (Some(ended), Some(slot)) = (ended, slot)
                && let Some(lost) = self.root_read(slot, ended).await
                && let Err(e) = self.conclude(slot, Verdict::Unhealthy(lost), false).await
            {
                self.degrade(e.to_string());
            }
            self.brought_up();
            if let (Some(plan), Some(slot)) = (&plan, slot) {
                let seen = self.observe(plan).await;
                let well = seen.findings.iter().all(|f| f.ok);
                self.report.saw(seen.findings);
                self.show();
                well_for = if well { well_for + 1 } else { 0 };
                if degraded
                    && well_for >= 3
                    && plan.problem.is_none()
                    && self.report.may_come_right()
                {
                    self.report.degraded.clear();
                    match self.conclude(slot, Verdict::Healthy, false).await {
                        Ok(()) => self.keep_for_recovery(plan),
                        Err(e) => self.degrade(e.to_string()),
                    }
                }
            }
            if slot.is_none() {
                // Recovery: nothing is asked of it but to be up.
                self.report.saw(Vec::new());
                self.show();
            }
            if saved.elapsed() >= SAVE_CLOCK {
                saved = Instant::now();
                apply::save_clock(&self.machine.paths());
                if let Some(slot) = slot {
                    self.claim_state(slot);
                }
            }
        }
    }
}
