//! Restarting the machine: through systemd, without a bus, and by force.

use std::time::Duration;

use super::process;
use super::systemd::Systemd;
use crate::failure::{Failure, Result};

/// How long systemctl may take to hand a request over.
const ASK_PATIENCE: Duration = Duration::from_secs(10);

/// Asks systemd for an orderly reboot.
pub fn reboot() -> Result<()> {
    process::wait_for(async {
        let asked = async { Systemd::connect().await?.reboot().await };
        let Err(e) = asked.await else { return Ok(()) };
        ask_without_bus().await.map_err(|also| {
            Failure::failed(format!("{}; {}", e.what, also.what))
                .doing("asking for a reboot, over the bus and without it")
                .next("reboot by hand")
        })
    })
}

/// Asks for an orderly reboot without a bus: systemctl uses systemd's own socket.
pub async fn ask_without_bus() -> Result<()> {
    let command = ["/usr/bin/systemctl", "--no-block", "reboot"].map(str::to_owned);
    process::run(&command, &[], ASK_PATIENCE)
        .await
        .map_err(|e| e.doing("running systemctl reboot"))
}

/// The last resort: writes out what there is and resets.
pub fn reboot_by_force() {
    rustix::fs::sync();
    let failed = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    eprintln!("bootctl: reset: {failed:?}");
}
