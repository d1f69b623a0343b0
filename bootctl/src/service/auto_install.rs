//! Recovery that was started by the loader itself installs what the profile names, where it names something.
//!
//! Not while somebody is at the machine: whoever repairs it by hand is not to be surprised. Nor while a slot is whole
//! that may come up when it is started again. One whose userland has not in ten starts may not: but plugs that are pulled
//! lead here as well, so that it stays as it is, and what is installed goes beside it. What fails is tried again for as
//! long as recovery runs; that restarts the machine in between, which tries the slots again (`step::idle`). Which slot is
//! written: [`to_write`]. What was installed twice and never came to a verdict: [`unwanted`].

use block_file::Access;
use boot_core::event::Stage;
use boot_core::record::{Record, SlotStatus};
use boot_core::select::never_comes_up;
use boot_core::{Digest, Slot, Target, transition};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Service;
use super::step::idle::{Installation, LIMIT, PAUSE};
use crate::boot::admission::Admission;
use crate::boot::slot_check::{self, SlotDevices};
use crate::boot::{self, Locked};
use crate::failure::{Code, Failure, Result};
use crate::install::into_slot::{Request, into_slot};
use crate::machine::Machine;
use crate::os::console;
use crate::profile::choose;
use crate::source;

/// How often recovery installs one image by itself.
const INSTALLATIONS: usize = 2;

/// What is to be installed, and how far that is.
pub(super) struct AutoInstall {
    /// The address of a bundle.
    from: String,
    state: InstallState,
}

enum InstallState {
    /// To be begun at this time.
    Due(Instant),
    /// Begun at this time.
    UnderWay(Instant, JoinHandle<Result<Option<Slot>>>),
    /// What was installed is to be started.
    Installed,
    /// There is a slot that is whole.
    NotNeeded,
}

impl AutoInstall {
    /// What the machine's profile says, if it says something.
    pub(super) fn by_profile(machine: &Machine) -> Option<Self> {
        let chosen = choose::in_force(&machine.paths()).ok()?;
        Some(Self {
            from: chosen.rendered.recovery_installs?,
            state: InstallState::Due(Instant::now()),
        })
    }
}

impl Service<'_> {
    /// How far the installation has come.
    pub(super) async fn installation(&mut self, install: &mut AutoInstall) -> Installation {
        if let InstallState::UnderWay(_, running) = &mut install.state
            && running.is_finished()
        {
            let ended = running.await.map_err(Failure::of).flatten();
            install.state = self.installed(&source::shown(&install.from), ended);
        }
        match &install.state {
            InstallState::Due(due) if Instant::now() >= *due => Installation::Due,
            InstallState::Due(_) => Installation::Pausing,
            InstallState::UnderWay(since, _) => Installation::UnderWay(since.elapsed()),
            InstallState::Installed => Installation::Done,
            InstallState::NotNeeded => Installation::NotWanted,
        }
    }

    pub(super) fn begin_to_install(&mut self, install: &mut AutoInstall) {
        let (machine, from) = (self.machine.clone(), install.from.clone());
        let running = tokio::task::spawn_blocking(move || put(&machine, &from));
        install.state = InstallState::UnderWay(Instant::now(), running);
        let doing = format!("installing {}", source::shown(&install.from));
        self.reporter.report.doing = Some(doing);
        self.reporter.show();
    }

    fn installed(&mut self, shown: &str, ended: Result<Option<Slot>>) -> InstallState {
        let prefix = format!("installing {shown} by itself: ");
        self.reporter.report.doing = None;
        // Of many tries, the last one counts.
        self.reporter
            .report
            .degraded
            .retain(|why| !why.starts_with(&prefix));
        let paths = self.machine.paths();
        match ended {
            Ok(Some(slot)) => {
                let line = format!("slot {slot} holds what the profile names; starting it");
                console::announce(&paths, &line);
                self.reporter.show();
                return InstallState::Installed;
            }
            Ok(None) => {
                self.reporter.show();
                return InstallState::NotNeeded;
            }
            // Somebody else installs.
            Err(e) if e.code == Code::Locked => {
                eprintln!("bootctl: {prefix}{e}");
                self.reporter.show();
            }
            Err(e) => {
                let why = format!("{prefix}{e}");
                console::announce(&paths, &why);
                self.reporter.degrade(why);
            }
        }
        InstallState::Due(Instant::now() + self.machine.pace.of(PAUSE))
    }
}

/// Installs and activates; into which slot. None, and nothing done, if a slot is whole that the record lets start and
/// that may come up.
fn put(machine: &Machine, from: &str) -> Result<Option<Slot>> {
    let record = boot::view(machine)?.record()?;
    let damages = Slot::BOTH
        .into_iter()
        .map(|slot| Ok((slot, damage(machine, &record, slot)?)))
        .collect::<Result<Vec<_>>>()?;
    let shown = source::shown(from);
    let paths = machine.paths();
    let is_whole = |(slot, damage): &&(Slot, Option<String>)| {
        damage.is_none() && record.slot(*slot).is_startable()
    };
    let may_come_up =
        |it: &&(Slot, Option<String>)| is_whole(it) && !never_comes_up(record.slot(it.0));
    let targets = to_write(&record, &damages);
    let kept = damages.iter().find(may_come_up);
    if let Some((slot, _)) =
        kept.or_else(|| damages.iter().find(is_whole).filter(|_| targets.is_empty()))
    {
        let line = format!("slot {slot} is whole, and {shown} is not installed");
        console::announce(&paths, &line);
        return Ok(None);
    }
    let unwanted = unwanted(machine, &record)?;
    let line = format!("recovery installs {shown}, as the profile says");
    console::announce(&paths, &line);
    let mut failed: Option<Failure> = None;
    for (slot, damage) in targets {
        let refused = failed.as_ref().is_some_and(|e| e.code == Code::Refused);
        // The record lets it start, and nothing else: it would not be emptied. But it may be the bundle that is refused.
        if let Some(damage) = damage
            && !refused
            && transition::clear(&record, slot, Target::Recovery).is_err()
        {
            Locked::wait_for(machine, "recovery")?.give_up_damaged(slot, &damage)?;
        }
        let request = Request {
            source: from,
            slot,
            force: false,
            activate: true,
            unwanted: &unwanted,
            patience: Some(LIMIT),
        };
        match into_slot(machine, request) {
            Ok(_) => return Ok(Some(slot)),
            Err(e) if refused && e.code == Code::Refused => break,
            // What the rules or the disk forbid here, they may allow there.
            Err(e) if [Code::Refused, Code::Failed].contains(&e.code) => failed = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(failed.unwrap_or_else(|| Failure::failed("there is no slot to install into")))
}

/// What is wrong with what a slot holds; none if it is whole, and could be started if only as the last resort.
fn damage(machine: &Machine, record: &Record, slot: Slot) -> Result<Option<String>> {
    if matches!(
        record.slot(slot).status(),
        SlotStatus::Empty | SlotStatus::GivenUp
    ) {
        return Ok(Some("there is nothing in it that is to start".into()));
    }
    let admission = Admission::of(machine)?;
    let read = SlotDevices::open(machine, slot, Access::Read)
        .and_then(|mut parts| slot_check::whole(&mut parts, slot, &admission, record));
    Ok(read.err().map(|e| e.what))
}

/// Which slots may be written, the one of less use first: never one that is whole while the other one is not, nor one
/// that is whole and good.
fn to_write(record: &Record, damages: &[(Slot, Option<String>)]) -> Vec<(Slot, Option<String>)> {
    let is_kept =
        |(slot, damage): &&(Slot, Option<String>)| damage.is_none() && record.slot(*slot).is_good();
    let mut damages: Vec<_> = damages.iter().filter(|it| !is_kept(it)).cloned().collect();
    damages.sort_by_key(|(slot, _)| match record.slot(*slot).status() {
        SlotStatus::Staged => 1,
        _ if record.slot(*slot).is_startable() => 2,
        _ => 0,
    });
    if damages.iter().any(|(_, damage)| damage.is_some()) {
        damages.retain(|(_, damage)| damage.is_some());
    } else {
        damages.truncate(1);
    }
    damages
}

/// What recovery has activated by itself so often, and of which no start came to a verdict. It is not installed once more;
/// another image from the same address is. Nothing is said against the image: it may come up when it is started again.
fn unwanted(machine: &Machine, record: &Record) -> Result<Vec<Digest>> {
    let mut control = boot::view(machine)?;
    let entries = Slot::BOTH.map(|slot| record.slot(slot)).into_iter();
    Ok(entries
        .filter(|entry| entry.status() == SlotStatus::Unproven)
        .map(|entry| entry.digest)
        .filter(|digest| control.activations(Stage::RECOVERY, digest) >= INSTALLATIONS)
        .collect())
}
