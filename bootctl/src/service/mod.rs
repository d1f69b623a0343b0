//! `bootctl serve`: from userland to a verdict.
//!
//! ```text
//! repair the record ─ verdict unfinished? ─ READY ─┬─ bring-up (files, then lanes)
//!                                                  ├─ root read in whole, after an unclean end
//!                                                  └─ gate: look, wait, look … verdict
//! ```
//!
//! [`step`] decides about the slot that runs, and this does what it says: what a start found, the verdict, whether the
//! machine is well after all. What else the service does of its own accord is decided elsewhere: what recovery does while
//! nobody uses it in [`step::idle`] (done in `idle_recovery`, `auto_install`, which also says into which slot), how an update of the loader ends in
//! `loader::decide` (done in `loader_update`), what becomes of a `state` that errs or is damaged in `state`. For what the
//! machine is restarted: the table at `Service::reboot`.
//!
//! A verdict on a slot on trial is committed and acted upon at once; on a good
//! slot it is shown. The machine stays up, degraded, where going back would not help: no other slot that verifies, or a
//! clock that cannot be right (then the fault may well be the clock's). A service that was started again goes on with
//! the same deadline, and with the same verdict if there was one.

mod auto_install;
mod idle_recovery;
mod loader_update;
pub mod report;
mod root_reads;
mod state;
mod steady_state;
pub mod step;
mod until_verdict;
mod verdict_commit;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use boot_core::Slot;
use boot_core::event::EventKind;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::report::Reporter;
use self::step::{Action, Phase, ProfileSeen, Seen, Spoken, Todo};
use crate::boot::Locked;
use crate::bring_up::lanes::LaneStates;
use crate::failure::{Code, Doing, Result};
use crate::health::baseline::Baseline;
use crate::health::gate::Gate;
use crate::kubernetes::ApiServers;
use crate::machine::Machine;
use crate::os::lock::Lock;
use crate::os::notify::{self, Notify};
use crate::os::systemd::Link;
use crate::os::{power, process};
use crate::profile::choose::{self, ChosenProfile};
use crate::state::{owner, shutdown_marker};
use crate::{machine, watchdog};

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

/// What systemd's watchdog is told: that the service lives, as long as it goes round.
struct Pulse {
    notify: Rc<Notify>,
    last: Rc<Cell<Instant>>,
}

impl Pulse {
    fn new(notify: Rc<Notify>) -> Self {
        Self {
            notify,
            last: Rc::new(Cell::new(Instant::now())),
        }
    }

    fn beat(&self) {
        self.last.set(Instant::now());
    }

    fn keep(&self) {
        let Some(every) = notify::watchdog_interval() else {
            return;
        };
        let (notify, last) = (self.notify.clone(), self.last.clone());
        tokio::task::spawn_local(async move {
            loop {
                if last.get().elapsed() < STUCK {
                    notify.alive();
                }
                sleep(every).await;
            }
        });
    }
}

struct Service<'m> {
    machine: &'m Machine,
    reporter: Reporter,
    pulse: Pulse,
    systemd: Link,
    api: ApiServers,
    /// The profile in force, once it was chosen, and what was begun by it.
    chosen: Option<ChosenProfile>,
    bring_up: Option<LaneStates>,
    gate: Option<Gate>,
    baseline: Baseline,
    root_scan: Option<JoinHandle<Result<()>>>,
}

impl<'m> Service<'m> {
    fn new(machine: &'m Machine) -> Self {
        let notify = Rc::new(Notify::from_environment());
        Self {
            machine,
            reporter: Reporter::new(machine.paths().run("serve.json"), notify.clone()),
            pulse: Pulse::new(notify),
            systemd: Link::new(machine.paths(), machine.pace),
            api: ApiServers::new(machine.paths()),
            chosen: None,
            bring_up: None,
            gate: None,
            baseline: Baseline::read(&machine.paths().state("baseline.json")),
            root_scan: None,
        }
    }

    async fn run(mut self) -> Result<()> {
        let mut terminate =
            signal(SignalKind::terminate()).doing(|| "waiting for the signal to stop")?;
        self.pulse.keep();
        self.reporter.show();
        let main = async {
            let silent = match self.machine.slot() {
                Some(slot) => {
                    let contradiction = self.machine.contradiction().map(str::to_owned);
                    self.follow(slot, Seen::Started(contradiction)).await;
                    vec![]
                }
                None => self.recover().await,
            };
            self.steady_state(silent).await
        };
        tokio::select! {
            // What goes down with the machine is no reason for a verdict.
            biased;
            _ = terminate.recv() => {}
            () = main => {}
        }
        self.pulse.notify.stopping();
        machine::clock::save(&self.machine.paths());
        Ok(())
    }

    /// Does what follows from `seen`, and from what comes of that.
    async fn follow(&mut self, slot: Slot, seen: Seen) {
        let mut todo = Todo::default();
        todo.add(&mut self.reporter.report.known, seen);
        while let Some(action) = todo.next() {
            if let Some(seen) = self.act(slot, action).await {
                todo.add(&mut self.reporter.report.known, seen);
            }
        }
        self.reporter.show();
    }

    /// Does one thing; what was seen by it.
    async fn act(&mut self, slot: Slot, action: Action) -> Option<Seen> {
        let paths = self.machine.paths();
        let marker = paths.state("running");
        match action {
            Action::Begin => {
                let begun = self.control().await;
                let begun = begun.and_then(|mut control| control.begin(slot));
                return Some(Seen::Begun(begun));
            }
            Action::AskLastRun => {
                let boot_id = &self.reporter.report.boot_id;
                return Some(Seen::LastRun(shutdown_marker::last_run(&marker, boot_id)));
            }
            Action::Choose => return Some(Seen::Chosen(self.choose())),
            Action::Watch => return Some(self.watch().await),
            Action::Conclude(verdict) => return self.conclude(slot, verdict).await,
            Action::Degrade(why) => self.reporter.degrade(why),
            Action::NoteUnclean => {
                let text = "the run before this one did not end in a clean shutdown";
                self.note(EventKind::UNCLEAN_SHUTDOWN, slot, text).await;
            }
            Action::Mark => {
                // With the marker, the next service takes this run for its own: that the root is to be read is written
                // down before.
                self.reporter.show();
                if let Err(e) = shutdown_marker::mark(&marker, &self.reporter.report.boot_id) {
                    self.reporter
                        .degrade(format!("writing {}: {e}", marker.display()));
                }
            }
            Action::Ready => self.pulse.notify.ready(),
            Action::TellLoader => self.tell_loader(),
            Action::ReadRoot => self.read_root(slot),
            Action::NoteCorrupt(lost) => self.note(EventKind::ROOT_CORRUPT, slot, &lost).await,
            Action::ClearStreak => {
                let cleared = self.control().await;
                if let Err(e) = cleared.and_then(|mut it| it.clear_streak(slot)) {
                    self.reporter.degrade(e.to_string());
                }
            }
            Action::BringUp => self.bring_up(),
            Action::Announce(what) => self.announce(slot, &what),
            Action::KeepForRecovery => self.keep_for_recovery(),
            Action::ForgetDegraded => self.reporter.report.degraded.clear(),
            Action::LookAtOther => self.look_at_silent(vec![slot.other()]).await,
            Action::Reboot => self.reboot().await,
            Action::RebootGood => {
                if self.may_reboot_good() {
                    self.reboot().await;
                }
            }
        }
        None
    }

    fn choose(&mut self) -> ProfileSeen {
        let unfit = owner::unfit(self.machine);
        match choose::in_force(&self.machine.paths()) {
            Ok(chosen) => {
                let plan = ProfileSeen {
                    is_there: true,
                    problem: chosen.problem.clone(),
                    unfit,
                    reboots_good: chosen.rendered.health.gate_reboots_good,
                };
                self.chosen = Some(chosen);
                plan
            }
            Err(e) => ProfileSeen {
                problem: Some(e.to_string()),
                unfit,
                ..ProfileSeen::default()
            },
        }
    }

    /// Keeps a profile that a good slot is well with. One that stands in for the machine's own, because that has a
    /// problem, would leave recovery without the network and the users of this place.
    fn keep_for_recovery(&self) {
        if let Some(plan) = &self.chosen
            && plan.problem.is_none()
        {
            choose::keep_for_recovery(&self.machine.paths(), plan);
        }
    }

    /// The recovery system: nothing to bring up and nothing to judge, but the record may be damaged. Slots whose starts
    /// ended without a word.
    async fn recover(&mut self) -> Vec<Slot> {
        let known = &mut self.reporter.report.known;
        known.phase = Phase::Healthy;
        known.verdict = Some(Spoken::Recovery);
        self.pulse.notify.ready();
        self.tell_loader();
        self.reporter.show();
        // There may be no disk at all.
        let begun = self.control().await;
        match begun.and_then(|mut control| control.begin_recovery()) {
            Ok(silent) => silent,
            Err(e) => {
                self.reporter.degrade(e.to_string());
                vec![]
            }
        }
    }

    /// Opens the boot state for one change, when whoever holds the lock has let go of it.
    async fn control(&self) -> Result<Locked> {
        let lock = loop {
            match Lock::take(&self.machine.paths().lock(), "serve") {
                Err(e) if e.code == Code::Locked => sleep(Duration::from_millis(100)).await,
                other => break other?,
            }
        };
        Locked::by(self.machine, lock)
    }

    /// Appends an event about the booted slot, for people.
    async fn note(&mut self, kind: EventKind, slot: Slot, text: &str) {
        match self.control().await {
            Ok(mut control) => {
                let digest = self.machine.boot.manifest_digest;
                control.event(kind, Some(slot.into()), digest, text);
            }
            Err(e) => self.reporter.degrade(e.to_string()),
        }
    }

    /// Userland is up, with or without a watchdog: the loader may count on that from now on.
    fn tell_loader(&self) {
        let driver = self.machine.boot.watchdog.as_deref();
        if let Err(e) = watchdog::tell_loader(&self.machine.paths(), driver) {
            eprintln!("bootctl: telling the loader about the watchdog: {e}");
        }
    }

    /// Whether systemd takes the machine down.
    async fn going_down(&mut self) -> bool {
        let asked = async {
            match self.systemd.get().await {
                Some(systemd) => systemd.stopping().await,
                None => false,
            }
        };
        tokio::time::timeout(self.machine.pace.of(ASK_PATIENCE), asked)
            .await
            .unwrap_or(false)
    }

    /// Reboots in an orderly way, and by force if that does not come about.
    ///
    /// All for which this machine restarts by itself while it runs:
    ///
    /// | why | who decides | what bounds it |
    /// | --- | --- | --- |
    /// | a verdict against a slot on trial, or a root that is damaged | [`step`]: `Action::Reboot`, unless [`step::Known::stays`] says why not | the same commit gives the slot up; where it could not be written, the loader counts the tries |
    /// | a good slot that is not well, where the profile asks for it | [`step`]: `Action::RebootGood` | `may_reboot_good`: once in six hours, as `state` remembers |
    /// | the kernel found an error in `state` | `restart_for_state` | not in the first six hours after a start; not if the whole disk is read-only |
    /// | a damaged `state` was erased, where the profile asks for it | `erases_state`, `erase_state` | two minutes for somebody to stop the service; only what is damaged, so not again once it worked |
    /// | recovery that nobody asked for and nobody uses | `step::idle` | 15 minutes without a key or an installation |
    /// | recovery has installed what the profile names | `step::idle` | a minute without a key; only where no slot is whole that may come up; one image twice at most |
    /// | the service has not started 15 minutes after systemd has | systemd, by `sternpost-overdue.timer` | as the next |
    /// | the service ended five times in two hours | systemd, by `sternpost.service` | each is a start that counts: a try on trial, the streak of a good slot |
    /// | a block of the running root is not what was signed, or cannot be read | dm-verity, by `restart_on_corruption` and `restart_on_error` (`initrd/src/dm_verity.rs`) | the next start reads the whole root, beside the bring-up, and a slot that is damaged is given up |
    /// | the kernel panics, PID 1 crashes, or nothing feeds the watchdog | kernel, systemd (`CrashAction=reboot`) and hardware; what covers which stretch: [`crate::watchdog`] | each is a start that counts, as above |
    ///
    /// Before the service runs, the agent in the initramfs restarts the machine too (`initrd/src/abort.rs`).
    async fn reboot(&mut self) {
        eprintln!("bootctl: rebooting");
        self.reporter.show();
        // Runs from here, whatever systemd does or does not answer.
        let forced = Instant::now() + REBOOT_PATIENCE;
        let asked = tokio::time::timeout(ASK_PATIENCE, self.systemd.reboot())
            .await
            .unwrap_or_else(|_| Err(Link::silent()));
        let forced = match asked {
            Ok(()) => forced,
            Err(e) => {
                eprintln!("bootctl: {e}");
                if self.machine.is_real() && asked_without_bus().await {
                    forced
                } else {
                    Instant::now() + Duration::from_secs(10)
                }
            }
        };
        tokio::time::sleep_until(forced).await;
        if self.machine.is_real() {
            power::reboot_by_force();
        }
    }
}

/// Whether systemctl took the request. On a thread of its own: a program on a disk that does not answer is waited for
/// while it is started.
async fn asked_without_bus() -> bool {
    let asking =
        tokio::task::spawn_blocking(|| process::wait_for(power::ask_without_bus(ASK_PATIENCE)));
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
