//! One look at everything that the profile names.

use profile::HealthPlan;

use super::checks;
use super::gate::{Finding, Observation};
use crate::bring_up::lanes::LaneState;
use crate::failure::{Failure, Result};
use crate::kubernetes::ApiServers;
use crate::os::systemd::Link;

/// What of the bring-up does not hold: each lane that is not through.
pub(crate) fn lanes(lanes: &[LaneState]) -> Vec<Finding> {
    let not_up = |lane: &LaneState| {
        let doing = lane.doing()?;
        Some(Finding::new(format!("{} is up", lane.lane), Err(doing)))
    };
    lanes.iter().filter_map(not_up).collect()
}

/// Failed units that count.
pub(crate) async fn failed_units(health: &HealthPlan, systemd: &mut Link) -> Result<Vec<String>> {
    if !health.units_failed {
        return Ok(Vec::new());
    }
    let Some(connection) = systemd.get().await else {
        return Err(Failure::failed("systemd does not answer"));
    };
    let failed = connection.failed().await.inspect_err(|_| {
        // The bus may have been started again: so is the connection.
        systemd.forget();
    })?;
    Ok(failed
        .into_iter()
        .filter(|unit| !health.units_ignored.contains(unit))
        .collect())
}

/// What is found about them: each by its name, so that one is told from another.
fn units(failed: &Result<Vec<String>>) -> Vec<Finding> {
    let all = |result| vec![Finding::new("no unit has failed", result)];
    match failed {
        Ok(units) if units.is_empty() => all(Ok(())),
        Ok(units) => units
            .iter()
            .map(|unit| Finding::unit_failed(unit))
            .collect(),
        Err(e) => all(Err(e.to_string())),
    }
}

/// Looks at everything; `alive` is told of each answer.
pub(crate) async fn observe(
    health: &HealthPlan,
    lanes: &[LaneState],
    systemd: &mut Link,
    api: &ApiServers,
    alive: impl Fn(),
) -> Observation {
    let mut findings = self::lanes(lanes);
    let failed_units = failed_units(health, systemd).await;
    match systemd.get().await {
        None => findings.push(Finding::new("systemd", Err("does not answer".into()))),
        Some(systemd) => {
            if health.units_failed {
                findings.extend(self::units(&failed_units));
            }
            for unit in &health.units {
                let result = match systemd.state_of(unit).await {
                    Ok(state) if state == "active" => Ok(()),
                    Ok(state) => Err(state),
                    Err(e) => Err(e.to_string()),
                };
                findings.push(Finding::new(format!("unit {unit} is active"), result));
            }
        }
    }
    for check in &health.checks {
        let result = checks::look(check, api).await;
        let failed = result.is_err();
        findings.push(Finding {
            blame: Some(check.blame),
            ..Finding::new(check.name.clone(), result)
        });
        alive();
        // What comes later in the plan usually needs what comes earlier.
        if failed {
            break;
        }
    }
    Observation {
        findings,
        failed_units: failed_units.unwrap_or_default(),
        hopeless: None,
    }
}
