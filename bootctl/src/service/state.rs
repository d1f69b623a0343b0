//! What the service does about `state`: says whose it is, makes a damaged one anew where the profile says so, and has
//! one repaired in which the kernel found an error.

use std::time::Duration;

use boot_core::Slot;
use boot_core::boot_report::StateProblem;
use boot_core::event::EventKind;

use super::Service;
use crate::boot::{self, slot_check};
use crate::failure::{Failure, Result};
use crate::machine::disk::{disk_is_read_only, errors_of_state};
use crate::os::console;
use crate::os::paths::Paths;
use crate::state::{erase, owner};

/// Before a damaged `state` is erased: time for somebody who sees it to stop the service, and the least time between
/// two such attempts on a disk that does not keep what it is given.
pub(super) const ERASE_AFTER: Duration = Duration::from_secs(120);

/// How long a machine is up before it restarts to have `state` repaired: a disk that errs at once after each start
/// restarts it four times a day, no more. Nothing else could remember when the last time was.
const RESTART_AFTER: Duration = Duration::from_secs(6 * 60 * 60);

impl Service<'_> {
    /// After an error the kernel lets nothing be written to `state` any more, and only the next start repairs it.
    /// Restarts the machine for that, unless its whole disk is read-only, which no start changes.
    pub(super) async fn restart_for_state(&mut self, slot: Slot) {
        let machine = self.machine;
        if errors_of_state(machine) == 0 || disk_is_read_only(machine) {
            return;
        }
        let why = "the kernel found an error in the state filesystem: nothing is kept any more";
        if !self
            .reporter
            .report
            .degraded
            .iter()
            .any(|known| known == why)
        {
            self.reporter.degrade(why);
        }
        if uptime(&machine.paths()) < RESTART_AFTER {
            return;
        }
        let line = format!("{why}; restarting the machine, so that it is repaired");
        match self.control().await {
            Ok(mut control) => {
                let digest = machine.boot.manifest_digest;
                let about = Some(slot.into());
                control.event(EventKind::STATE_PROBLEM, about, digest, &line);
            }
            Err(e) => eprintln!("bootctl: {e}"),
        }
        console::announce(&machine.paths(), &line);
        self.reboot().await;
    }

    /// Says on `state` that it is this version's, once that is marked good. Done again later where it fails.
    pub(super) fn claim_state(&self, slot: Slot) {
        let machine = self.machine;
        let Some(image) = &machine.image else { return };
        if owner::unfit(machine).is_some() || !self.is_good(slot) {
            return;
        }
        if let Err(e) = owner::claim(&machine.paths(), image, Some(machine.boot.manifest_digest)) {
            eprintln!("bootctl: {e}");
        }
    }

    pub(super) fn is_good(&self, slot: Slot) -> bool {
        boot::view(self.machine)
            .and_then(|mut control| control.record())
            .is_ok_and(|record| record.slot(slot).is_good())
    }

    /// Whether a damaged `state` is to be erased: the profile says so, and what says that it is damaged is a version
    /// that was marked good, or the only one that starts. One on trial may be what is wrong.
    pub(super) fn erases_state(&self, slot: Slot) -> bool {
        let alone = || {
            boot::view(self.machine)
                .and_then(|mut control| control.record())
                .is_ok_and(|record| {
                    slot_check::startable(self.machine, &record, slot.other()).is_err()
                })
        };
        self.machine.boot.state.problem == Some(StateProblem::Damaged)
            && self
                .chosen
                .as_ref()
                .is_some_and(|plan| plan.rendered.erases_damaged_state)
            && (self.is_good(slot) || alone())
    }

    /// Erases it and starts the machine again.
    pub(super) async fn erase_state(&mut self) -> Result<()> {
        let machine = self.machine.clone();
        let why = "it was damaged, and the profile says so";
        let erasing = tokio::task::spawn_blocking(move || erase::erase(&machine, false, why));
        let device = erasing.await.map_err(Failure::of)??;
        let line = format!("{device}, the state partition, was damaged and has been erased");
        console::announce(&self.machine.paths(), &line);
        self.reboot().await;
        Ok(())
    }
}

/// How long the machine has been up; no time at all if it does not say.
fn uptime(paths: &Paths) -> Duration {
    std::fs::read_to_string(paths.at("/proc/uptime"))
        .ok()
        .and_then(|text| text.split('.').next()?.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs)
}
