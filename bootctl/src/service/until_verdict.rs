//! What is seen, from the beginning of the bring-up to a verdict.

use boot_core::Slot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{LOOK, LOOK_DEGRADED, Service, root_scan};
use crate::boot::verdict::Verdict;
use crate::bring_up::lanes::{self, BringUp};
use crate::bring_up::{self, step};
use crate::failure::{Failure, Result};
use crate::health::gate::{Finding, Gate, Observation};
use crate::health::report::Phase;
use crate::profile::choose::Chosen;

impl Service<'_> {
    /// Brings the machine up and looks at it until there is a verdict.
    pub(super) async fn watch(
        &mut self,
        slot: Slot,
        plan: Option<&Chosen>,
        hopeless: Option<String>,
    ) -> Verdict {
        if let Some(why) = hopeless {
            return Verdict::Unhealthy(why);
        }
        let Some(plan) = plan else {
            return Verdict::Unhealthy("no profile is in force".into());
        };
        let health = &plan.rendered.health;
        self.report.deadline_seconds = health.deadline.as_secs();
        self.report.phase = Phase::BringingUp;
        self.show();
        self.bring_up(plan);
        let mut gate = Gate::new(health.deadline, health.settle);
        loop {
            let began = Instant::now();
            self.beat.set(began);
            let state = self.brought_up();
            self.report.doing = state.doing();
            if state == BringUp::Done {
                self.report.phase = Phase::Watching;
            }
            // As of now, whatever is waited for before it is judged.
            let elapsed = self.elapsed();
            let mut seen = match &state {
                // The other slot is known to be good, every second in this one is lost, and what a sound image on a
                // sound machine needs at most is over: that it may come right later is no reason to wait.
                BringUp::Failed(why) if self.report.on_trial => Observation {
                    hopeless: Some(why.clone()),
                    ..Observation::default()
                },
                // Nothing can hold before it has been started: spare the machine the asking. A slot that was good has
                // nowhere better to go, so what failed in it has until the deadline, and after it.
                BringUp::Running(_) | BringUp::Failed(_) => Observation {
                    findings: lanes::findings(&self.report.lanes),
                    failed_units: self.failed_units(plan).await.unwrap_or_default(),
                    hopeless: None,
                },
                BringUp::Done => {
                    let left = health.deadline.saturating_sub(self.elapsed()) + LOOK;
                    match tokio::time::timeout(left, self.observe(plan)).await {
                        Ok(seen) => seen,
                        Err(_) => Observation {
                            findings: vec![Finding::new(
                                "health checks",
                                Err("had not all answered at the deadline".into()),
                            )],
                            ..Observation::default()
                        },
                    }
                }
            };
            if self
                .root_check
                .as_ref()
                .is_some_and(JoinHandle::is_finished)
            {
                let ended = root_scan::ended(&mut self.root_check).await;
                if let Some(lost) = self.root_read(slot, ended).await {
                    seen.hopeless = Some(lost);
                }
            }
            if self.root_check.is_some() {
                seen.findings
                    .push(Finding::new("root read in whole", Err("under way".into())));
            }
            self.report.saw(seen.findings.clone());
            self.show();
            if let Some(verdict) = gate.observe(elapsed, &seen) {
                return verdict;
            }
            // Looking must not take what coming up needs: at most a third of the time.
            let pause = LOOK.max(began.elapsed() * 2).min(LOOK_DEGRADED);
            tokio::select! {
                () = sleep(pause) => {}
                () = lanes::changed(&mut self.bring_up) => {}
            }
        }
    }

    /// Begins to bring everything up. It goes on after the verdict: a good slot that is late may
    /// still come up.
    pub(super) fn bring_up(&mut self, plan: &Chosen) {
        self.report.brought_up = None;
        self.bring_up = Some(bring_up::begin(self.machine.paths(), plan.rendered.clone()));
    }

    /// How far the bring-up has come; the report knows where each lane stands.
    pub(super) fn brought_up(&mut self) -> BringUp {
        let Some(progress) = &mut self.bring_up else {
            return BringUp::Running("not begun".into());
        };
        self.report.lanes = progress.borrow_and_update().clone();
        let state = BringUp::of(&self.report.lanes);
        self.report.brought_up = (state == BringUp::Done).then_some(true);
        state
    }

    /// Failed units that count.
    async fn failed_units(&mut self, plan: &Chosen) -> Result<Vec<String>> {
        let health = &plan.rendered.health;
        if !health.units_failed {
            return Ok(Vec::new());
        }
        let Some(systemd) = self.systemd().await else {
            return Err(Failure::failed("systemd does not answer"));
        };
        let failed = match systemd.failed().await {
            Ok(failed) => failed,
            Err(e) => {
                // The bus may have been started again: so is the connection.
                self.systemd = None;
                return Err(e);
            }
        };
        Ok(failed
            .into_iter()
            .filter(|unit| !health.units_ignored.contains(unit))
            .collect())
    }

    /// Looks at everything that the profile names.
    pub(super) async fn observe(&mut self, plan: &Chosen) -> Observation {
        let health = &plan.rendered.health;
        let mut findings = lanes::findings(&self.report.lanes);
        let failed_units = self.failed_units(plan).await;
        match self.systemd().await {
            None => findings.push(Finding::new("systemd", Err("does not answer".into()))),
            Some(systemd) => {
                if health.units_failed {
                    let result = match &failed_units {
                        Ok(units) if units.is_empty() => Ok(()),
                        Ok(units) => Err(units.join(", ")),
                        Err(e) => Err(e.to_string()),
                    };
                    findings.push(Finding::new("no unit has failed", result));
                }
                for unit in &health.units {
                    let result = match systemd.state_of(unit).await {
                        Ok(state) if state == "active" => Ok(()),
                        Ok(state) => Err(state),
                        Err(e) => Err(e.to_string()),
                    };
                    findings.push(Finding::new(format!("unit {unit} is active"), result));
                }
            }
        }
        for check in &health.checks {
            let result = step::check(check).await;
            let failed = result.is_err();
            findings.push(Finding::new(check.name.clone(), result));
            self.beat.set(Instant::now());
            // What comes later in the plan usually needs what comes earlier.
            if failed {
                break;
            }
        }
        Observation {
            findings,
            failed_units: failed_units.unwrap_or_default(),
            hopeless: None,
        }
    }
}
