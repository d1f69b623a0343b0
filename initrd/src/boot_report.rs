//! What the running system is told of this start: /run/sternpost/boot.json, and the loader's hand-over beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::drivers::Drivers;
use crate::failure::{Context, Failure};
use crate::new_root::RUN;
use crate::start::Start;
use crate::state::{self, State};
use crate::timeline::Timeline;

/// What the running system is told; see docs/formats.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) disk: Option<String>,
    pub(crate) partitions: BTreeMap<String, String>,
    /// What the table says of each, for bootctl, which tells firmware where an ESP is.
    pub(crate) table: BTreeMap<String, serde_json::Value>,
    pub(crate) root_device: String,
    pub(crate) grown_gpt: bool,
    pub(crate) notes: Vec<String>,
}

/// Writes handover.json and boot.json.
pub(crate) fn write(
    start: &Start,
    report: &Report,
    state: &State,
    first_boot: bool,
    drivers: &Drivers,
    timeline: &Timeline,
) -> Result<(), Failure> {
    let facts = serde_json::json!({
        "version": 1,
        "slot": start.handover.slot,
        "kind": if start.is_recovery() { "recovery" } else { "system" },
        "disk": report.disk,
        "partitions": report.partitions,
        "table": report.table,
        "root_device": report.root_device,
        "manifest_digest": start.handover.manifest.to_string(),
        "first_boot": first_boot,
        "grown": { "gpt": report.grown_gpt, "state": state.grown },
        "watchdog": drivers.watchdog.as_ref().map(|watchdog| watchdog.name.clone()),
        "watchdog_seconds": drivers.watchdog.as_ref().map(|watchdog| watchdog.seconds),
        "state": {
            "status": state.status.name(),
            "problem": state.status.problem().map(state::Problem::name),
            "reason": state.reason,
        },
        "notes": report.notes,
        "timeline": timeline.to_json(),
    });
    let run = Path::new(RUN);
    for (name, content) in [
        ("handover.json", start.raw.clone()),
        ("boot.json", facts.to_string().into_bytes()),
    ] {
        fs::write(run.join(name), content).context("writing", run.join(name).display())?;
    }
    Ok(())
}
