//! Restarting the machine: through systemd, without a bus, and by force.

use super::systemd::Systemd;
use crate::failure::{Doing, Failure, Result};

/// Asks systemd for an orderly reboot.
pub fn reboot() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime")?;
    let asked = runtime.block_on(async { Systemd::connect().await?.reboot().await });
    asked.or_else(|e| {
        ask_without_bus().map_err(|also| {
            Failure::failed(format!("{}; {}", e.what, also.what))
                .doing("asking for a reboot, over the bus and without it")
                .next("reboot by hand")
        })
    })
}

/// Asks for an orderly reboot without a bus: systemctl uses systemd's own socket.
pub fn ask_without_bus() -> Result<()> {
    let doing = || "running systemctl reboot";
    let status = std::process::Command::new("/usr/bin/systemctl")
        .args(["--no-block", "reboot"])
        .status()
        .doing(doing)?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::failed(status).doing(doing()))
    }
}

/// The last resort: writes out what there is and resets.
pub fn reboot_by_force() {
    rustix::fs::sync();
    let failed = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    eprintln!("bootctl: reset: {failed:?}");
}
