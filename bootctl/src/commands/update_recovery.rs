//! `update-recovery`: opens what [`crate::install::replace_recovery`] works on.

use block_file::Access;
use boot_core::{Slot, Target};
use clap::Args;
use indicatif::HumanBytes;
use serde_json::json;

use super::Wait;
use crate::boot;
use crate::boot::admission::Admission;
use crate::failure::Result;
use crate::install::replace_recovery;
use crate::machine::Machine;
use crate::output::Outcome;
use crate::progress::Progress;
use crate::source::{self, Reach};

/// Arguments of `update-recovery`.
#[derive(Debug, Args)]
pub struct UpdateRecovery {
    /// A bundle of a recovery system (.spb): a file, - for standard input, or an http:// or https:// address
    pub source: String,
    #[command(flatten)]
    pub wait: Wait,
}

/// `bootctl update-recovery`.
pub fn update_recovery(machine: &Machine, arguments: &UpdateRecovery) -> Result<Outcome> {
    let shown = source::shown(&arguments.source);
    let what = format!("update-recovery {shown}");
    let (_lock, mut control) = boot::installing(machine, &what)?;
    let admission = Admission::of(machine)?;
    let mut target = machine.open(Target::Recovery.label_boot(), Access::Alone)?;
    let [a, b] = Slot::BOTH.map(|slot| machine.open(slot.label_boot(), Access::Read));
    let progress = Progress::new();
    let reach = Reach::of(machine).for_as_long_as(arguments.wait.patience());
    let mut source = source::open(&arguments.source, &progress, &reach)?;
    let replaced = replace_recovery::replace(
        &mut control,
        &mut target,
        [&mut a?, &mut b?],
        source.as_mut(),
        &admission,
        &progress,
    )
    .map_err(|e| e.doing(format!("replacing recovery by {shown}")))?;
    let text = if replaced.was_there {
        format!("recovery is version {} already", replaced.version)
    } else {
        format!(
            "recovery is version {}: {} fetched; `bootctl reboot --recovery` tries it",
            replaced.version,
            HumanBytes(replaced.fetched)
        )
    };
    Ok(Outcome::new(text, json!({"recovery": replaced})))
}
