//! Restarting the machine: through systemd, without a bus, and by force.

use std::time::Duration;

use super::process;
use super::systemd::Systemd;
use crate::failure::{Failure, Result};

/// How long systemctl may take to hand a request over where there is nothing else to try: it asks logind by the bus first,
/// for which sd-bus has 90 s, and systemd itself by a socket of its own then.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks systemd for an orderly reboot.
pub fn reboot() -> Result<()> {
    process::wait_for(async {
        let asked = async { Systemd::connect().await?.reboot().await };
        let Err(e) = asked.await else { return Ok(()) };
        ask_without_bus(PATIENCE).await.map_err(|also| {
            Failure::failed(format!("{}; {}", e.what, also.what))
                .doing("asking for a reboot, over the bus and without it")
                .next("reboot by hand")
        })
    })
}

/// Asks for an orderly reboot by systemctl, which needs no bus.
pub async fn ask_without_bus(patience: Duration) -> Result<()> {
    let command = ["/usr/bin/systemctl", "--no-block", "reboot"].map(str::to_owned);
    process::run(&command, &[], patience).await
}

/// The last resort: writes out what there is and resets.
pub fn reboot_by_force() {
    rustix::fs::sync();
    let failed = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    eprintln!("bootctl: reset: {failed:?}");
}
