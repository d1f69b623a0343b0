//! `reboot`: in an orderly way, or into the recovery system once.

use block_file::Access;
use boot_core::Target;
use boot_core::verify::would_start;
use clap::Args;
use serde_json::json;

use crate::boot::Locked;
use crate::boot::admission::Admission;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::os::power;
use crate::output::Outcome;

/// Arguments of `reboot`.
#[derive(Debug, Args)]
pub struct Reboot {
    /// Start the recovery system, once
    #[arg(long)]
    pub recovery: bool,
}

/// `bootctl reboot`.
pub fn reboot(machine: &Machine, arguments: &Reboot) -> Result<Outcome> {
    if arguments.recovery {
        let mut control = Locked::wait_for(machine, "reboot --recovery")?;
        let record = control.record()?;
        let mut device = machine.open(Target::Recovery.label_boot(), Access::Read)?;
        would_start(
            &mut device,
            Target::Recovery,
            &Admission::of(machine)?,
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
pub(super) fn begin(machine: &Machine) -> Result<()> {
    if machine.is_real() {
        power::reboot()
    } else {
        Ok(())
    }
}
