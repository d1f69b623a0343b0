//! What is seen, from the beginning of the bring-up to a verdict.

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::step::{Phase, Seen};
use super::{LOOK, LOOK_DEGRADED, Service, root_reads};
use crate::boot::verdict::Verdict;
use crate::bring_up;
use crate::bring_up::lanes::{self, BringUp};
use crate::health::gate::{FAILED_IS_FINAL, Finding, Gate, Observation};
use crate::health::observe;

impl Service<'_> {
    /// Brings the machine up and looks at it until there is a verdict, or the root has been read.
    pub(super) async fn watch(&mut self) -> Seen {
        self.bring_up();
        let Some(plan) = &self.chosen else {
            return Seen::Judged(Verdict::Unhealthy("no profile is in force".into()));
        };
        let health = plan.rendered.health.clone();
        let mut gate = self.gate.take().unwrap_or_else(|| {
            let failed_is_final = self.machine.pace.of(FAILED_IS_FINAL);
            Gate::new(health.deadline, health.settle, failed_is_final)
        });
        let report = &mut self.reporter.report;
        report.deadline_seconds = health.deadline.as_secs();
        report.known.phase = Phase::BringingUp;
        let seen = loop {
            if self.root_scan.as_ref().is_some_and(JoinHandle::is_finished) {
                break Seen::Root(root_reads::ended(&mut self.root_scan).await);
            }
            let began = Instant::now();
            self.pulse.beat();
            let state = self.brought_up();
            self.reporter.report.doing = state.doing();
            if state == BringUp::Done {
                self.reporter.report.known.phase = Phase::Watching;
            }
            // As of now, whatever is waited for before it is judged.
            let elapsed = self.reporter.elapsed();
            let systemd = &mut self.systemd;
            let mut seen = match &state {
                // The other slot is known to be good, every second in this one is lost, and what a sound image on a
                // sound machine needs at most is over: that it may come right later is no reason to wait.
                BringUp::Failed(why) if self.reporter.report.known.on_trial => Observation {
                    hopeless: Some(why.clone()),
                    ..Observation::default()
                },
                // Nothing can hold before it has been started: spare the machine the asking. A slot that was good has
                // nowhere better to go, so what failed in it has until the deadline, and after it.
                BringUp::Running(_) | BringUp::Failed(_) => Observation {
                    findings: observe::lanes(&self.reporter.report.lanes),
                    failed_units: observe::failed_units(&health, systemd)
                        .await
                        .unwrap_or_default(),
                    hopeless: None,
                },
                BringUp::Done => {
                    let left = health.deadline.saturating_sub(elapsed) + self.machine.pace.of(LOOK);
                    let lanes = &self.reporter.report.lanes;
                    let looking =
                        observe::observe(&health, lanes, systemd, &self.api, || self.pulse.beat());
                    tokio::time::timeout(left, looking)
                        .await
                        .unwrap_or_else(|_| Observation {
                            findings: vec![Finding::new(
                                "health checks",
                                Err("had not all answered at the deadline".into()),
                            )],
                            ..Observation::default()
                        })
                }
            };
            if self.root_scan.is_some() {
                seen.findings
                    .push(Finding::new("root read in whole", Err("under way".into())));
            }
            if self.reporter.report.known.on_trial {
                self.baseline.compare(&mut seen.findings);
            }
            self.reporter.report.saw(seen.findings.clone());
            self.reporter.show();
            if let Some(verdict) = gate.observe(elapsed, &seen) {
                break Seen::Judged(verdict);
            }
            // Looking must not take what coming up needs: at most a third of the time.
            let pause = self.machine.pace.of(LOOK).max(began.elapsed() * 2);
            tokio::select! {
                () = sleep(pause.min(self.machine.pace.of(LOOK_DEGRADED))) => {}
                () = lanes::changed(&mut self.bring_up) => {}
            }
        };
        self.gate = Some(gate);
        seen
    }

    /// Begins to bring everything up, once. It goes on after the verdict: a good slot that is late may still come up.
    pub(super) fn bring_up(&mut self) {
        if let (Some(plan), None) = (&self.chosen, &self.bring_up) {
            self.reporter.report.known.brought_up = None;
            let rendered = plan.rendered.clone();
            self.bring_up = Some(bring_up::begin(
                self.machine.paths(),
                rendered,
                self.api.clone(),
            ));
        }
    }

    /// How far the bring-up has come; the report knows where each lane stands.
    pub(super) fn brought_up(&mut self) -> BringUp {
        let Some(progress) = &mut self.bring_up else {
            return BringUp::Running("not begun".into());
        };
        let report = &mut self.reporter.report;
        report.lanes = progress.borrow_and_update().clone();
        let state = BringUp::of(&report.lanes);
        report.known.brought_up = (state == BringUp::Done).then_some(true);
        state
    }
}
