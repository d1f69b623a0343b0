//! The health plan: what every machine has to be, and what the profile adds.

use crate::schema::{Health, UnitName};
use crate::{Check, HealthPlan};

pub(super) fn plan(health: &Health, units: Vec<String>, checks: Vec<Check>) -> HealthPlan {
    let names = |units: &[UnitName]| units.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut all = units;
    for unit in names(&health.units) {
        if !all.contains(&unit) {
            all.push(unit);
        }
    }
    HealthPlan {
        deadline: health.deadline.duration(),
        settle: health.settle.duration(),
        units_failed: health.no_failed_units,
        units_ignored: names(&health.ignore_units),
        units: all,
        checks,
        gate_reboots_good: health.reboot_when_good,
    }
}
