//! What the service does about `state`: says whose it is, and makes a damaged one anew where the profile says so.

use std::time::Duration;

use boot_core::Slot;

use super::{Service, console};
use crate::commands::{booted_digest, control, erase_state};
use crate::failure::{Failure, Result};
use crate::machine::StateProblem;
use crate::profiles::Chosen;
use crate::{fallback, owner};

/// Before a damaged `state` is erased: time for somebody who sees it to stop the service, and the least time between
/// two such attempts on a disk that does not keep what it is given.
pub(super) const ERASE_AFTER: Duration = Duration::from_secs(120);

impl Service<'_> {
    /// Says on `state` that it is this version's, once that is marked good. Done again later where it fails.
    pub(super) fn claim_state(&self, slot: Slot) {
        let machine = self.machine;
        let Some(image) = &machine.image else { return };
        if machine.state_unfit().is_some() || !self.is_good(slot) {
            return;
        }
        if let Err(e) = owner::claim(&machine.paths(), image, booted_digest(machine)) {
            eprintln!("bootctl: {e}");
        }
    }

    fn is_good(&self, slot: Slot) -> bool {
        control(self.machine, false)
            .and_then(|mut control| control.record())
            .is_ok_and(|record| record.slot(slot).is_good())
    }

    /// Whether a damaged `state` is to be erased: the profile says so, and what says that it is damaged is a version
    /// that was marked good, or the only one that starts. One on trial may be what is wrong.
    pub(super) fn erases_state(&self, slot: Slot, plan: &Chosen) -> bool {
        let alone = || {
            control(self.machine, false)
                .and_then(|mut control| control.record())
                .is_ok_and(|record| {
                    fallback::startable(self.machine, &record, slot.other()).is_err()
                })
        };
        self.machine.boot.state_problem() == Some(StateProblem::Damaged)
            && plan.rendered.erases_damaged_state
            && (self.is_good(slot) || alone())
    }

    /// Erases it and starts the machine again.
    pub(super) async fn erase_state(&mut self) -> Result<()> {
        let machine = self.machine.clone();
        let why = "it was damaged, and the profile says so";
        let erasing = tokio::task::spawn_blocking(move || erase_state::erase(&machine, false, why));
        let device = erasing.await.map_err(Failure::failed)??;
        let line = format!("{device}, the state partition, was damaged and has been erased");
        console::announce(&self.machine.paths(), &line);
        self.reboot().await;
        Ok(())
    }
}
