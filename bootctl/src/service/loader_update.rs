//! An update of the loader, once the slot that it started is good.

use boot_core::Slot;

use super::Service;
use crate::loader::{UpdateOutcome, under_way};

impl Service<'_> {
    /// Brings an update that is under way to its end, if the start that decides has been; false if that does not work.
    pub(super) async fn go_on_with_loader_update(&mut self, slot: Slot) -> bool {
        let machine = self.machine.clone();
        // An ESP is written: that may take seconds.
        let done = tokio::task::spawn_blocking(move || under_way::go_on(&machine, slot)).await;
        let why = match done {
            Ok(Ok(outcome)) => {
                match outcome {
                    None => {}
                    Some(UpdateOutcome::PutBack(why)) => {
                        eprintln!("bootctl: the new loader is given up: {why}");
                    }
                    Some(_) => eprintln!("bootctl: the new loader is on both ESPs"),
                }
                return true;
            }
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        self.reporter.degrade(format!("updating the loader: {why}"));
        false
    }
}
