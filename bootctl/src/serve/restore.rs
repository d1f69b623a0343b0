//! Recovery that was started by the loader itself installs what the profile names, where it names something.
//!
//! Not while somebody is at the machine: whoever repairs it by hand is not to be surprised. What fails is tried again for
//! as long as recovery runs; that restarts the machine in between, which tries the slots again (`alone`).

use std::time::Duration;

use boot_core::Slot;
use boot_core::record::Record;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::alone::Alone;
use super::{Service, console};
use crate::cli::Install;
use crate::commands::{control, install};
use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;
use crate::{profiles, source};

/// Before the first try, from recovery's start and from the last key that somebody pressed, and between two tries.
const PAUSE: Duration = Duration::from_secs(60);

/// What is to be installed, and how far that is.
pub(super) struct Restore {
    /// The address of a bundle.
    from: String,
    due: Instant,
    under_way: Option<JoinHandle<Result<Slot>>>,
}

impl Restore {
    /// What the machine's profile says, if it says something.
    pub(super) fn by_profile(machine: &Machine) -> Option<Self> {
        let chosen = profiles::choose(&machine.paths()).ok()?;
        Some(Self {
            from: chosen.rendered.recovery_installs?,
            due: Instant::now(),
            under_way: None,
        })
    }

    /// Whether an installation runs.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

impl Service<'_> {
    /// Begins to install when it is time to, and starts the machine again when that has worked.
    pub(super) async fn restore(&mut self, restore: &mut Restore, alone: &Alone) {
        let shown = source::shown(&restore.from);
        match restore.under_way.take() {
            Some(running) if !running.is_finished() => restore.under_way = Some(running),
            Some(ended) => {
                restore.due = Instant::now() + PAUSE;
                let ended = ended.await.map_err(Failure::failed);
                self.restored(&shown, ended.flatten()).await;
            }
            None if alone.lasts(PAUSE) && Instant::now() >= restore.due => {
                let line = format!("recovery installs {shown}, as the profile says");
                console::announce(&self.machine.paths(), &line);
                let (machine, from) = (self.machine.clone(), restore.from.clone());
                restore.under_way = Some(tokio::task::spawn_blocking(move || put(&machine, &from)));
                self.report.doing = Some(format!("installing {shown}"));
                self.show();
            }
            None => {}
        }
    }

    async fn restored(&mut self, shown: &str, ended: Result<Slot>) {
        let prefix = format!("installing {shown} by itself: ");
        self.report.doing = None;
        // Of many tries, the last one counts.
        self.report.degraded.retain(|why| !why.starts_with(&prefix));
        match ended {
            Ok(slot) => {
                let line = format!("slot {slot} holds what the profile names; starting it");
                console::announce(&self.machine.paths(), &line);
                self.reboot().await;
            }
            // Somebody else installs.
            Err(e) if e.code == Code::Locked => self.show(),
            Err(e) => {
                let why = format!("{prefix}{e}");
                console::announce(&self.machine.paths(), &why);
                self.degrade(why);
            }
        }
    }
}

/// Installs and activates; into which slot.
fn put(machine: &Machine, from: &str) -> Result<Slot> {
    let record = control(machine, false)?.record()?;
    let into = |slot: Slot| {
        let arguments = Install {
            source: from.to_owned(),
            now: true,
            force: false,
            slot: Some(slot.into()),
        };
        install::put(machine, &arguments).map(|_| slot)
    };
    let first = expendable(&record);
    match into(first) {
        // The rules may want the other one to be left alone, or this one.
        Err(e) if e.code == Code::Refused => into(first.other()).map_err(|_| e),
        done => done,
    }
}

/// The slot that is of less use: one that the record does not let start, before one that only does not verify.
fn expendable(record: &Record) -> Slot {
    Slot::BOTH
        .into_iter()
        .find(|slot| !record.slot(*slot).is_startable())
        .unwrap_or(Slot::A)
}
