//! The same for people.

use std::fmt::Write as _;

use boot_core::select::Why;

use super::facts::Status;
use crate::bring_up::lanes::{LaneState, Standing, now_ms};
use crate::commands::health::now_and_then;
use crate::output::short;

pub(super) fn text(status: &Status) -> String {
    let mut out = String::new();
    let booted = &status.booted;
    let product = booted.product.as_deref().unwrap_or("");
    let version = booted.version.as_deref().unwrap_or("of unknown version");
    let _ = write!(out, "{product} {version} runs from {}", booted.slot);
    if let Some(why) = booted.why {
        let why = match why {
            Why::Priority => "it comes first",
            Why::OneShot => "it was asked for once",
            Why::Uncounted => "nothing else could be started: last resort",
            Why::Rebuilt => "the boot-state record was lost and made anew",
            Why::Unrecorded => "the start could not be recorded",
        };
        let _ = write!(out, " ({why})");
    }
    out.push('\n');
    slots(status, &mut out);
    if let Some(report) = &status.health {
        let _ = writeln!(out, "health: {}", now_and_then(report));
        lanes(&report.lanes, now_ms(), &mut out);
    }
    out.push_str("a hang is ended by\n");
    for stretch in &status.watchdog.stretches {
        let by = match (&stretch.by, &stretch.why) {
            (Some(by), _) => by.clone(),
            (None, Some(why)) => format!("nothing: {why}"),
            (None, None) => "nothing".into(),
        };
        let _ = writeln!(out, "  {:48} {by}", stretch.what);
    }
    if status.problems.is_empty() {
        out.push_str("nothing is wrong");
    }
    for problem in &status.problems {
        let _ = write!(out, "\n! {}\n  next: {}", problem.what, problem.next);
    }
    if let Some(profile) = &status.profile {
        let left_out = profile.left_out.iter().map(|it| ("left out: ", it));
        let warnings = profile.warnings.iter().map(|it| ("", it));
        for (kind, said) in left_out.chain(warnings) {
            let (file, line, column) = (profile.file.display(), said.line, said.column);
            let _ = write!(out, "\n? {file}:{line}:{column}: {kind}{}", said.message);
            if let Some(help) = &said.help {
                let _ = write!(out, "\n  next: {help}");
            }
        }
    }
    out
}

fn slots(status: &Status, out: &mut String) {
    let Some(slots) = &status.slots else {
        out.push_str("the boot-state record cannot be read\n");
        return;
    };
    out.push_str("\n        status     version           tries  streak  security  manifest\n");
    for (slot, facts) in slots.each() {
        let notes = [
            (facts.booted, "booted"),
            (status.next == Some(slot.into()), "next"),
            (facts.quarantined, "quarantined"),
        ];
        let notes: Vec<_> = notes.iter().filter(|it| it.0).map(|it| it.1).collect();
        let manifest = facts.manifest.as_ref().map_or_else(|| "-".into(), short);
        let version = facts
            .version
            .map_or_else(|| "-".into(), |it| it.to_string());
        let _ = writeln!(
            out,
            "slot {slot}  {:10} {version:17} {:5}  {:6}  {:8}  {manifest:12}  {}",
            facts.status,
            facts.tries,
            facts.failure_streak,
            facts.security_version,
            notes.join(", ")
        );
    }
    if let (Some(floor), Some(recovery)) = (status.record.floor, status.record.recovery_floor) {
        let _ = writeln!(out, "security floor {floor}, recovery's {recovery}");
    }
    let keyring = (
        status.record.keyring_floor,
        status.record.recovery_keyring_floor,
    );
    if let (Some(floor), Some(recovery)) = keyring {
        let _ = writeln!(out, "keyring floor {floor}, recovery's {recovery}");
    }
    if let Some(floors) = &status.floors
        && let Some(known) = floors.firmware_known
    {
        let (system, recovery) = (floors.system, floors.recovery);
        let _ = match known {
            true => writeln!(
                out,
                "with firmware's floors: {system}, recovery's {recovery}"
            ),
            false => writeln!(out, "firmware's floors could not be read"),
        };
    }
}

/// Where the bring-up stands: one line for all that is through, one for each lane that is not.
fn lanes(lanes: &[LaneState], now_ms: u64, out: &mut String) {
    let through: Vec<&str> = lanes
        .iter()
        .filter(|lane| lane.standing == Standing::Through)
        .map(|lane| lane.lane.as_str())
        .collect();
    if !through.is_empty() {
        let _ = writeln!(out, "brought up: {}", through.join(", "));
    }
    for lane in lanes {
        let Some(doing) = lane.doing() else { continue };
        let since = now_ms.saturating_sub(lane.since_ms) / 1000;
        let _ = write!(out, "bringing up {}, for {since} s: {doing}", lane.lane);
        if let Some(again) = lane.again_ms {
            let _ = write!(out, "; again in {} s", again.saturating_sub(now_ms) / 1000);
        }
        out.push('\n');
    }
}
