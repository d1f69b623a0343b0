//! `reboot`: in an orderly way, or into the recovery system once.

use boot_core::Target;
use serde_json::json;

use crate::boot::slot_check;
use crate::cli::Reboot;
use crate::failure::{Doing, Failure, Result};
use crate::machine::Machine;
use crate::os::lock::Lock;
use crate::os::systemd::Systemd;
use crate::output::Outcome;

/// `bootctl reboot`.
pub fn reboot(machine: &Machine, arguments: &Reboot) -> Result<Outcome> {
    if arguments.recovery {
        let _lock = Lock::wait_for(&machine.paths().lock(), "reboot --recovery")?;
        machine.writable()?;
        let mut control = super::control(machine, true)?;
        let record = control.record()?;
        let mut device = machine.open(Target::Recovery.label_boot(), false)?;
        slot_check::verify(
            &mut device,
            Target::Recovery,
            &slot_check::trust(machine)?,
            &record,
        )
        .map_err(|rejected| {
            Failure::verification(rejected)
                .doing("verifying the recovery system")
                .next("this machine has none that starts; nothing was changed")
        })?;
        control.one_shot(Target::Recovery)?;
    }
    begin(machine)?;
    let text = if arguments.recovery {
        "rebooting into recovery"
    } else {
        "rebooting"
    };
    Ok(Outcome::new(
        text.into(),
        json!({"rebooting": true, "recovery": arguments.recovery}),
    ))
}

/// Asks systemd for an orderly reboot. A directory that stands in for a machine has none.
pub fn begin(machine: &Machine) -> Result<()> {
    if !machine.is_real() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "starting the runtime")?;
    let asked = runtime.block_on(async { Systemd::connect().await?.reboot().await });
    asked.or_else(|e| {
        ask_without_bus().map_err(|_| e.next("reboot with `systemctl reboot`, or by hand"))
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
