//! An update of the loader, once the slot that it started is good.

use super::Service;
use crate::commands::update_loader;
use crate::loader::Settled;

impl Service<'_> {
    /// Brings an update that is under way to its end, if the start that decides has been.
    pub(super) async fn settle_loader(&mut self) {
        let Some(slot) = self.machine.slot().filter(|_| !self.loader_failed) else {
            return;
        };
        let machine = self.machine.clone();
        // An ESP is written: that may take seconds.
        let done = tokio::task::spawn_blocking(move || update_loader::go_on(&machine, slot)).await;
        match done {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(Settled::GivenUp(why)))) => {
                eprintln!("bootctl: the new loader is given up: {why}");
            }
            Ok(Ok(Some(_))) => eprintln!("bootctl: the new loader is on both ESPs"),
            Ok(Err(e)) => self.loader_fails(&e),
            Err(e) => self.loader_fails(&e),
        }
    }

    /// Once a start: a disk that refuses now is not written to every few minutes.
    fn loader_fails(&mut self, why: &dyn std::fmt::Display) {
        self.loader_failed = true;
        self.degrade(format!("updating the loader: {why}"));
    }
}
