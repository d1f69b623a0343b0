//! What the running system is told of this start: the agent's report, and the loader's hand-over beside it.

use std::fs;
use std::path::Path;

use boot_core::boot_report::{self, BootReport};

use crate::failure::{Context, Failure};
use crate::new_root::RUN;

/// Writes handover.json and boot.json.
pub(crate) fn write(hand_over: &[u8], report: &BootReport) -> Result<(), Failure> {
    let run = Path::new(RUN);
    for (name, content) in [
        ("handover.json", hand_over),
        (boot_report::FILE, &report.to_json()),
    ] {
        fs::write(run.join(name), content).context("writing", run.join(name).display())?;
    }
    Ok(())
}
