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

mod auto_install;
mod idle_recovery;
mod loader_update;
mod root_scan;
mod state;
mod steady_state;
mod until_verdict;
mod verdict;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use boot_core::event::EventKind;
use boot_core::{Digest, Slot};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::boot::control::Control;
use crate::boot::verdict::Verdict;
use crate::bring_up::lanes::Progress;
use crate::failure::{Code, Doing, Failure, Result};
use crate::health::report::{Phase, Report, Reporter, RootRead};
use crate::machine::Machine;
use crate::machine::facts;
use crate::os::clock;
use crate::os::device::BlockFile;
use crate::os::lock::Lock;
use crate::os::notify::{self, Notify};
use crate::os::systemd::Systemd;
use crate::profile::apply;
use crate::profile::choose;
use crate::state::shutdown_marker::{self, LastRun};
use crate::watchdog;

/// Between two looks while a verdict is open, after it, and while the machine is degraded.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_AFTER: Duration = Duration::from_secs(120);
const LOOK_DEGRADED: Duration = Duration::from_secs(20);
/// Without a sign that the gate goes round for this long, systemd is told nothing any more, and ends the service.
const STUCK: Duration = Duration::from_secs(900);
/// How often the clock is saved.
const SAVE_CLOCK: Duration = Duration::from_secs(600);
/// How long systemd may take to say whether it takes the machine down, or to take a request.
const ASK_PATIENCE: Duration = Duration::from_secs(10);
/// After this, an orderly reboot that does not come is forced.
const REBOOT_PATIENCE: Duration = Duration::from_secs(300);

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
    bring_up: Option<Progress>,
    root_check: Option<JoinHandle<Result<()>>>,
    /// Slots beside the booted one whose roots are to be read after the verdict.
    silent: Vec<Slot>,
    /// An update of the loader could not be brought to its end in this start.
    loader_failed: bool,
}

impl<'m> Service<'m> {
    fn new(machine: &'m Machine) -> Self {
        let boot_id = facts::boot_id();
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
            bring_up: None,
            root_check: None,
            silent: Vec::new(),
            loader_failed: false,
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
                Err(e) if e.code == Code::Locked => sleep(Duration::from_millis(100)).await,
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
            // What goes down with the machine is no reason for a verdict.
            biased;
            _ = terminate.recv() => {}
            () = main => {}
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
                if beat.get().elapsed() < STUCK {
                    notify.alive();
                }
                sleep(every).await;
            }
        });
    }

    async fn stop(&mut self) {
        self.notify.stopping();
        let paths = self.machine.paths();
        // Asked first, while the bus is still there.
        if self.going_down().await
            && let Err(e) = shutdown_marker::unmark(&paths.state("running"))
        {
            eprintln!("bootctl: marking the end of this run: {e}");
        }
        apply::save_clock(&paths);
    }

    /// Whether systemd takes the machine down.
    async fn going_down(&mut self) -> bool {
        let asked = async {
            match self.systemd().await {
                Some(systemd) => systemd.stopping().await,
                None => false,
            }
        };
        tokio::time::timeout(ASK_PATIENCE, asked)
            .await
            .unwrap_or(false)
    }

    async fn systemd(&mut self) -> Option<Systemd> {
        if self.systemd.is_none() {
            match Systemd::of(&self.machine.paths()).await {
                Ok(systemd) => self.systemd = Some(systemd),
                Err(e) => eprintln!("bootctl: {e}"),
            }
        }
        self.systemd.clone()
    }

    async fn until_verdict(&mut self) -> Result<()> {
        let Some(slot) = self.machine.slot() else {
            self.recover().await;
            return Ok(());
        };
        if self.report.verdict.is_some() {
            self.notify.ready();
            if self.report.phase == Phase::GoingBack {
                self.reboot().await;
            }
            // The service was started again: what it had not finished goes on.
            if matches!(self.report.root, RootRead::Pending | RootRead::Damaged) {
                self.check_root(slot);
            }
            return Ok(());
        }
        if let Some(what) = self.machine.contradiction() {
            self.degrade(what.to_owned());
        }
        if let Err(e) = self.begin(slot).await {
            self.degrade(e.to_string());
        }
        let marker = self.machine.paths().state("running");
        let last = shutdown_marker::last_run(&marker, &self.boot_id);
        if last == LastRun::Unclean {
            self.report.root = RootRead::Pending;
            self.show();
            let text = "the run before this one did not end in a clean shutdown";
            self.note(EventKind::UNCLEAN_SHUTDOWN, slot, text).await;
        }
        if let Err(e) = shutdown_marker::mark(&marker, &self.boot_id) {
            self.degrade(format!("writing {}: {e}", marker.display()));
        }
        self.notify.ready();
        self.tell_loader();
        match self.report.root {
            // Damage that was found, but not yet acted upon, is found again.
            RootRead::Pending | RootRead::Damaged => self.check_root(slot),
            RootRead::NotAsked | RootRead::Sound => self.clear_streak(slot).await,
            RootRead::Failed => {}
        }

        let chosen = choose::choose(&self.machine.paths());
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
        let missing = self.machine.state_unfit();
        if let Some(missing) = &missing {
            // A cluster made anew in memory would hide the one that is on the disk, and one that a newer version left
            // is not ours to start.
            self.report.brought_up = Some(false);
            self.degrade(missing.clone());
        }
        let kept = missing.is_none();
        // An image that cannot use the machine's state, or read its profile, is not one to stay in.
        let hopeless = missing.or_else(|| problem.filter(|_| self.report.on_trial));
        let verdict = self.watch(slot, plan.as_ref(), hopeless).await;
        // With nothing kept, it could not know that it rebooted before, and would do so for ever.
        let reboots_good = kept
            && plan
                .as_ref()
                .is_some_and(|p| p.rendered.health.gate_reboots_good);
        let healthy = verdict == Verdict::Healthy;
        self.conclude(slot, verdict, reboots_good).await?;
        if healthy && let Some(plan) = &plan {
            self.keep_for_recovery(plan);
        }
        Ok(())
    }

    /// Keeps a profile that a good slot is well with. One that stands in for the machine's own, because that has a
    /// problem, would leave recovery without the network and the users of this place.
    fn keep_for_recovery(&self, plan: &choose::Chosen) {
        if plan.problem.is_none() {
            choose::keep_for_recovery(&self.machine.paths(), plan);
        }
    }

    /// What comes before anything is brought up.
    async fn begin(&mut self, slot: Slot) -> Result<()> {
        let (lock, mut control) = self.control().await?;
        let begun = control.begin(slot)?;
        drop((control, lock));
        self.report.on_trial = begun.on_trial;
        self.silent
            .extend(begun.other_silent.then_some(slot.other()));
        if let Some(reason) = begun.overdue? {
            self.notify.ready();
            self.conclude(slot, Verdict::Unhealthy(reason), false)
                .await?;
        }
        Ok(())
    }

    /// The recovery system: nothing to bring up and nothing to judge, but the record may be damaged.
    async fn recover(&mut self) {
        self.report.phase = Phase::Healthy;
        self.report.verdict = Some("recovery".into());
        self.notify.ready();
        self.tell_loader();
        self.show();
        let begun = match self.control().await {
            Ok((_lock, mut control)) => control.begin_recovery(),
            // There may be no disk at all.
            Err(e) => Err(e),
        };
        match begun {
            Ok(silent) => self.silent = silent,
            Err(e) => self.degrade(e.to_string()),
        }
    }

    /// Appends an event about the booted slot, for people.
    async fn note(&mut self, kind: EventKind, slot: Slot, text: &str) {
        match self.control().await {
            Ok((_lock, mut control)) => {
                let digest = crate::commands::booted_digest(self.machine).unwrap_or(Digest::ZERO);
                control.event(kind, Some(slot.into()), digest, text);
            }
            Err(e) => self.degrade(e.to_string()),
        }
    }

    /// Userland is up, with or without a watchdog: the loader may count on that from now on.
    fn tell_loader(&self) {
        let driver = self.machine.boot.watchdog.as_deref();
        if let Err(e) = watchdog::tell_loader(&self.machine.paths(), driver) {
            eprintln!("bootctl: telling the loader about the watchdog: {e}");
        }
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

    /// Reboots in an orderly way, and by force if that does not come about.
    async fn reboot(&mut self) {
        eprintln!("bootctl: rebooting");
        // Runs from here, whatever systemd does or does not answer.
        let forced = Instant::now() + REBOOT_PATIENCE;
        let asking = async {
            match self.systemd().await {
                Some(systemd) => systemd.reboot().await,
                None => Err(Failure::failed("systemd does not answer")),
            }
        };
        let asked = tokio::time::timeout(ASK_PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(Failure::failed("systemd does not answer")));
        let forced = match asked {
            Ok(()) => forced,
            Err(e) => {
                eprintln!("bootctl: {e}");
                if self.machine.is_real() && ask_without_bus().await {
                    forced
                } else {
                    Instant::now() + Duration::from_secs(10)
                }
            }
        };
        tokio::time::sleep_until(forced).await;
        if self.machine.is_real() {
            crate::commands::reboot_by_force();
        }
    }
}

/// Asks through systemctl, which may hang as well.
async fn ask_without_bus() -> bool {
    let asking = tokio::task::spawn_blocking(crate::commands::ask_without_bus);
    matches!(
        tokio::time::timeout(ASK_PATIENCE, asking).await,
        Ok(Ok(Ok(())))
    )
}

#[cfg(test)]
mod tests {
    use super::STUCK;

    const UNIT: &str = include_str!("../../units/sternpost.service");

    /// A setting of the unit, in seconds where it is a time.
    fn setting(name: &str) -> u64 {
        let value = UNIT
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{name} is not set"));
        match value.strip_suffix('h') {
            Some(hours) => hours.parse::<u64>().unwrap() * 3600,
            None => value.parse().unwrap(),
        }
    }

    #[test]
    fn a_service_that_hangs_each_time_is_counted_out() {
        let end = setting("TimeoutStopSec") + setting("RestartSec");
        let slowest = (STUCK.as_secs() + setting("WatchdogSec")).max(setting("TimeoutStartSec"));
        assert!(setting("StartLimitBurst") * (slowest + end) < setting("StartLimitIntervalSec"));
        assert!(UNIT.contains("\nStartLimitAction=reboot\n"));
    }
}
