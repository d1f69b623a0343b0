//! `bootctl serve`: from userland to a verdict.
//!
//! ```text
//! repair the record ─ verdict overdue? ─ READY ─┬─ bring-up (files, units, steps)
//!                                               ├─ root read in whole, after an unclean end
//!                                               └─ gate: look, wait, look … verdict
//! ```
//!
//! A verdict on a slot on trial is committed and acted upon at once; on a good slot it is shown. The
//! machine stays up, degraded, where going back would not help: no other slot that verifies, or a
//! clock that cannot be right (then the fault may well be the clock's). A service that was started
//! again goes on with the same deadline, and with the same verdict if there was one.

mod bring_up;
pub(crate) mod gate;
mod notify;
pub mod report;
pub(crate) mod run;
pub(crate) mod systemd;
mod unclean;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use boot_core::event::EventKind;
use boot_core::{Digest, Slot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::bring_up::BringUp;
use self::gate::{Finding, Gate, Observation, Verdict};
use self::notify::Notify;
use self::report::{Phase, Report, Reporter};
use self::systemd::Systemd;
use self::unclean::LastRun;
use crate::clock;
use crate::control::Control;
use crate::device::BlockFile;
use crate::failure::{Code, Doing, Failure, Result};
use crate::lock::Lock;
use crate::machine::Machine;
use crate::profiles::{self, Chosen};

/// Between two looks while a verdict is open, after it, and while the machine is degraded.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_AFTER: Duration = Duration::from_secs(120);
const LOOK_DEGRADED: Duration = Duration::from_secs(20);
/// How often the clock is saved.
const SAVE_CLOCK: Duration = Duration::from_secs(600);
/// After this, an orderly reboot that does not come is forced.
const REBOOT_PATIENCE: Duration = Duration::from_secs(300);
/// A good slot is not rebooted by the gate more often than this.
const REBOOT_GOOD_EVERY: i64 = 6 * 3600;

/// Runs until systemd stops it.
pub fn serve(machine: &Machine) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime")?;
    let local = tokio::task::LocalSet::new();
    let ended = runtime.block_on(local.run_until(Service::new(machine).run()));
    // A root check still under way must not hold the service up.
    runtime.shutdown_background();
    ended
}

struct Service<'m> {
    machine: &'m Machine,
    notify: Rc<Notify>,
    boot_id: String,
    report: Report,
    reporter: Reporter,
    beat: Rc<Cell<Instant>>,
    systemd: Option<Systemd>,
    root_damaged: bool,
}

impl<'m> Service<'m> {
    fn new(machine: &'m Machine) -> Self {
        let boot_id = profiles::boot_id();
        let path = machine.paths().run("serve.json");
        let report = Report::read(&path, &boot_id).unwrap_or_else(|| {
            let started = u64::try_from(clock::since_boot().as_millis()).unwrap_or(0);
            Report::new(boot_id.clone(), started)
        });
        Self {
            machine,
            notify: Rc::new(Notify::from_environment()),
            boot_id,
            report,
            reporter: Reporter::new(path),
            beat: Rc::new(Cell::new(Instant::now())),
            systemd: None,
            root_damaged: false,
        }
    }

    /// Since the service first started in this boot.
    fn elapsed(&self) -> Duration {
        clock::since_boot().saturating_sub(Duration::from_millis(self.report.started_ms))
    }

    fn show(&mut self) {
        self.notify.status(&match &self.report.doing {
            Some(doing) => format!("{}: {doing}", self.report.phase.words()),
            None => self.report.phase.words().to_owned(),
        });
        self.reporter.write(&self.report);
    }

    fn degrade(&mut self, why: impl Into<String>) {
        let why = why.into();
        eprintln!("bootctl: degraded: {why}");
        self.report.degrade(why);
        self.show();
    }

    /// Opens the boot state for one change, when whoever holds the lock has let go of it.
    async fn control(&self) -> Result<(Lock, Control<BlockFile>)> {
        let lock = loop {
            match Lock::take(&self.machine.paths().lock(), "serve") {
                Err(e) if e.code == Code::Locked => sleep(Duration::from_millis(500)).await,
                other => break other?,
            }
        };
        self.machine.writable()?;
        Ok((lock, crate::commands::control(self.machine, true)?))
    }

    async fn run(mut self) -> Result<()> {
        let mut terminate =
            signal(SignalKind::terminate()).doing(|| "waiting for the signal to stop")?;
        self.keep_alive();
        self.show();
        let main = async {
            match self.until_verdict().await {
                Ok(()) => {}
                Err(e) => self.degrade(e.to_string()),
            }
            self.keep_watching().await
        };
        tokio::select! {
            () = main => {}
            _ = terminate.recv() => {}
        }
        self.stop().await;
        Ok(())
    }

    /// Tells systemd's watchdog that we live, as long as the gate goes round.
    fn keep_alive(&self) {
        let Some(every) = notify::watchdog_interval() else {
            return;
        };
        let (notify, beat) = (self.notify.clone(), self.beat.clone());
        tokio::task::spawn_local(async move {
            loop {
                if beat.get().elapsed() < Duration::from_secs(900) {
                    notify.alive();
                }
                sleep(every).await;
            }
        });
    }

    async fn stop(&mut self) {
        self.notify.stopping();
        let paths = self.machine.paths();
        if let Err(e) = clock::save(&paths.state("clock")) {
            eprintln!("bootctl: saving the clock: {e}");
        }
        let going_down = match self.systemd().await {
            Some(systemd) => systemd.stopping().await,
            None => false,
        };
        if going_down && let Err(e) = unclean::unmark(&paths.state("running")) {
            eprintln!("bootctl: removing the marker of this run: {e}");
        }
    }

    async fn systemd(&mut self) -> Option<Systemd> {
        if self.systemd.is_none() {
            let connected = if self.machine.is_real() {
                Systemd::connect().await
            } else {
                Systemd::connect_to(&self.machine.paths().at("/run/systemd/private")).await
            };
            match connected {
                Ok(systemd) => self.systemd = Some(systemd),
                Err(e) => eprintln!("bootctl: {e}"),
            }
        }
        self.systemd.clone()
    }

    async fn until_verdict(&mut self) -> Result<()> {
        let Some(slot) = self.machine.slot() else {
            self.report.phase = Phase::Healthy;
            self.report.verdict = Some("recovery".into());
            self.notify.ready();
            self.show();
            return Ok(());
        };
        if self.report.verdict.is_some() {
            self.notify.ready();
            if self.report.phase == Phase::GoingBack {
                self.reboot().await;
            }
            return Ok(());
        }
        if let Some(what) = self.machine.contradiction() {
            self.degrade(what.to_owned());
        }
        let on_trial = match self.begin(slot).await {
            Ok(on_trial) => on_trial,
            Err(e) => {
                self.degrade(e.to_string());
                false
            }
        };
        let marker = self.machine.paths().state("running");
        let last = unclean::last_run(&marker, &self.boot_id);
        if let Err(e) = unclean::mark(&marker, &self.boot_id) {
            self.degrade(format!("writing {}: {e}", marker.display()));
        }
        self.notify.ready();
        let mut root_check = None;
        if last == LastRun::Unclean {
            eprintln!(
                "bootctl: the last run did not end in a clean shutdown; reading the whole root"
            );
            let machine = self.machine.clone();
            root_check = Some(tokio::task::spawn_blocking(move || {
                crate::root_check::booted(&machine, slot)
            }));
        } else {
            self.clear_streak(slot).await;
        }

        let chosen = profiles::choose(&self.machine.paths());
        let (plan, problem) = match chosen {
            Ok(chosen) => {
                let problem = chosen.problem.clone();
                (Some(chosen), problem)
            }
            Err(e) => (None, Some(e.to_string())),
        };
        if let Some(problem) = &problem {
            self.degrade(problem.clone());
        }
        // An image that cannot read the machine's profile is not one to stay in.
        let hopeless = problem.filter(|_| on_trial);
        let verdict = self.watch(slot, plan.as_ref(), hopeless, root_check).await;
        let reboots_good = plan.is_some_and(|p| p.rendered.health.gate_reboots_good);
        self.conclude(slot, verdict, reboots_good).await
    }

    /// What comes before anything is brought up. Returns whether the slot is on trial.
    async fn begin(&mut self, slot: Slot) -> Result<bool> {
        let (lock, mut control) = self.control().await?;
        if let Err(e) = control.repair() {
            eprintln!("bootctl: {e}");
        }
        let on_trial = !control.record()?.slot(slot).is_good();
        let overdue = control.overdue(slot)?;
        drop((control, lock));
        if let Some(entry) = overdue {
            let reason = entry.reason;
            self.notify.ready();
            self.conclude(slot, Verdict::Unhealthy(reason), false)
                .await?;
        }
        Ok(on_trial)
    }

    async fn clear_streak(&mut self, slot: Slot) {
        let done = match self.control().await {
            Ok((_lock, mut control)) => control.clear_streak(slot).map(|_| ()),
            Err(e) => Err(e),
        };
        if let Err(e) = done {
            self.degrade(e.to_string());
        }
    }

    /// Brings the machine up and looks at it until there is a verdict.
    async fn watch(
        &mut self,
        slot: Slot,
        plan: Option<&Chosen>,
        hopeless: Option<String>,
        root_check: Option<tokio::task::JoinHandle<Result<()>>>,
    ) -> Verdict {
        if let Some(why) = hopeless {
            return Verdict::Unhealthy(why);
        }
        let (sender, mut progress) = watch::channel(BringUp::Running("starting".into()));
        let Some(plan) = plan else {
            return Verdict::Unhealthy("no profile is in force".into());
        };
        let health = &plan.rendered.health;
        self.report.deadline_seconds = health.deadline.as_secs();
        self.report.phase = Phase::BringingUp;
        self.show();
        let systemd = self.systemd().await;
        let bringing_up = tokio::task::spawn_local(bring_up::bring_up(
            self.machine.paths(),
            plan.rendered.clone(),
            systemd,
            sender,
        ));
        let mut root_check = root_check;
        let mut gate = Gate::new(health.deadline, health.settle);
        let verdict = loop {
            let began = Instant::now();
            self.beat.set(began);
            let state = progress.borrow_and_update().clone();
            self.report.doing = state.doing();
            if state == BringUp::Done {
                self.report.phase = Phase::Watching;
            }
            let mut seen = match &state {
                // Nothing can hold before it has been started: spare the machine the asking.
                BringUp::Running(doing) => Observation {
                    findings: vec![Finding::new("bring-up", Err(doing.clone()))],
                    failed_units: self.failed_units(plan).await,
                    hopeless: None,
                },
                BringUp::Failed(why) => Observation {
                    hopeless: Some(why.clone()),
                    ..Observation::default()
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
            if root_check
                .as_ref()
                .is_some_and(tokio::task::JoinHandle::is_finished)
                && let Some(check) = root_check.take()
            {
                match check.await {
                    Ok(Ok(())) => self.clear_streak(slot).await,
                    Ok(Err(e)) if e.code == Code::Verification => {
                        self.root_damaged = true;
                        seen.hopeless = Some(e.to_string());
                    }
                    Ok(Err(e)) => self.degrade(e.to_string()),
                    Err(e) => self.degrade(e.to_string()),
                }
            }
            if root_check.is_some() {
                seen.findings
                    .push(Finding::new("root read in whole", Err("under way".into())));
            }
            self.report.findings.clone_from(&seen.findings);
            self.show();
            if let Some(verdict) = gate.observe(self.elapsed(), &seen) {
                break verdict;
            }
            // Looking must not take what coming up needs: at most a third of the time.
            let pause = LOOK.max(began.elapsed() * 2).min(LOOK_DEGRADED);
            tokio::select! {
                () = sleep(pause) => {}
                changed = progress.changed() => if changed.is_err() { sleep(pause).await },
            }
        };
        // It goes on: a good slot that is late may still come up.
        drop(bringing_up);
        verdict
    }

    /// Failed units that count.
    async fn failed_units(&mut self, plan: &Chosen) -> Vec<String> {
        let health = &plan.rendered.health;
        if !health.units_failed {
            return Vec::new();
        }
        let Some(systemd) = self.systemd().await else {
            return Vec::new();
        };
        let failed = systemd.failed().await.unwrap_or_default();
        failed
            .into_iter()
            .filter(|unit| !health.units_ignored.contains(unit))
            .collect()
    }

    /// Looks at everything that the profile names.
    async fn observe(&mut self, plan: &Chosen) -> Observation {
        let health = &plan.rendered.health;
        let mut findings = Vec::new();
        let failed_units = self.failed_units(plan).await;
        match self.systemd().await {
            None => findings.push(Finding::new("systemd", Err("does not answer".into()))),
            Some(systemd) => {
                if health.units_failed {
                    let result = if failed_units.is_empty() {
                        Ok(())
                    } else {
                        Err(failed_units.join(", "))
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
            let result = run::check(check).await;
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
            failed_units,
            hopeless: None,
        }
    }

    /// Commits a verdict and acts on it.
    async fn conclude(&mut self, slot: Slot, verdict: Verdict, reboots_good: bool) -> Result<()> {
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
        if entry.is_good() && !self.root_damaged {
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

    /// Reboots in an orderly way, and by force if that does not come about.
    async fn reboot(&mut self) {
        eprintln!("bootctl: rebooting");
        let asked = match self.systemd().await {
            Some(systemd) => systemd.reboot().await,
            None => Err(Failure::failed("systemd does not answer")),
        };
        let patience = match asked {
            Ok(()) => REBOOT_PATIENCE,
            Err(e) => {
                eprintln!("bootctl: {e}");
                let asked = self.machine.is_real() && crate::commands::ask_without_bus().is_ok();
                if asked {
                    REBOOT_PATIENCE
                } else {
                    Duration::from_secs(10)
                }
            }
        };
        sleep(patience).await;
        if self.machine.is_real() {
            crate::commands::reboot_by_force();
        }
    }

    /// After the verdict: keeps the report true and the clock saved, and notices when a machine that
    /// stayed up comes right after all.
    async fn keep_watching(&mut self) {
        let slot = self.machine.slot();
        let plan = slot.and_then(|_| profiles::choose(&self.machine.paths()).ok());
        let mut saved = Instant::now();
        let mut well_for = 0_u32;
        loop {
            let degraded = self.report.phase == Phase::Degraded;
            sleep(if degraded { LOOK_DEGRADED } else { LOOK_AFTER }).await;
            self.beat.set(Instant::now());
            if let (Some(plan), Some(slot)) = (&plan, slot) {
                let seen = self.observe(plan).await;
                let well = seen.findings.iter().all(|f| f.ok);
                self.report.findings = seen.findings;
                self.show();
                well_for = if well { well_for + 1 } else { 0 };
                // Not a damaged root: that it runs so far says nothing about the blocks not yet read.
                if degraded && well_for >= 3 && plan.problem.is_none() && !self.root_damaged {
                    self.report.degraded.clear();
                    if let Err(e) = self.conclude(slot, Verdict::Healthy, false).await {
                        self.degrade(e.to_string());
                    }
                }
            }
            if saved.elapsed() >= SAVE_CLOCK {
                saved = Instant::now();
                if let Err(e) = clock::save(&self.machine.paths().state("clock")) {
                    eprintln!("bootctl: saving the clock: {e}");
                }
            }
        }
    }
}
