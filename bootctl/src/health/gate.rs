//! The health gate: from what is seen, over time, to one verdict.
//!
//! Pure: observations and the time since the service first started go in. A verdict is final.
//!
//! | seen | verdict |
//! | --- | --- |
//! | everything holds for `settle` without a break | healthy |
//! | in a slot on trial, a step of the bring-up failed as often as it may | unhealthy, at once |
//! | a unit stays failed for [`FAILED_IS_FINAL`] | unhealthy: systemd will not start it again |
//! | anything does not hold at the deadline | unhealthy, with the list |
//! | everything holds at the deadline, but not yet for `settle` | unhealthy |
//!
//! Beside the gate, [`crate::service::step`] judges what needs no watching: a profile or a `state` that cannot be used,
//! a damaged root, a verdict that was never committed. What failed in the bring-up comes in by `service::until_verdict`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use profile::Blame;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boot::verdict::Verdict;

/// A unit that has been in the state `failed` for this long stays there: restarts that systemd
/// still has in hand are shown as `activating`.
pub(crate) const FAILED_IS_FINAL: Duration = Duration::from_secs(15);

/// What is added to what did not hold before either.
const BEFORE: &str = " (so it was before this version)";

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What must hold.
    pub name: String,
    /// Whether it does.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whose fault it is, most likely, where what renders the check says so. It decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<Blame>,
    /// In a version on trial: that it did not hold before that one either. Where it is not said, it held then, or was not
    /// looked at. It decides nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before: bool,
}

impl Finding {
    pub(crate) fn new(name: impl Into<String>, result: Result<(), String>) -> Self {
        Self {
            name: name.into(),
            ok: result.is_ok(),
            why: result.err(),
            blame: None,
            before: false,
        }
    }

    pub(crate) fn unit_failed(unit: &str) -> Self {
        Self::new(format!("unit {unit} has not failed"), Err("it has".into()))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        if self.before {
            f.write_str(BEFORE)?;
        }
        Ok(())
    }
}

/// One look at the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observation {
    /// Each thing that must hold.
    pub(crate) findings: Vec<Finding>,
    /// Units in the state `failed` that are not let pass.
    pub(crate) failed_units: Vec<String>,
    /// What can never come right.
    pub(crate) hopeless: Option<String>,
}

/// Watches one boot.
#[derive(Debug)]
pub(crate) struct Gate {
    deadline: Duration,
    settle: Duration,
    failed_is_final: Duration,
    well_since: Option<Duration>,
    failed_since: BTreeMap<String, Duration>,
}

impl Gate {
    pub(crate) fn new(deadline: Duration, settle: Duration, failed_is_final: Duration) -> Self {
        Self {
            deadline,
            settle,
            failed_is_final,
            well_since: None,
            failed_since: BTreeMap::new(),
        }
    }

    /// Takes in what was seen `now` after the start.
    pub(crate) fn observe(&mut self, now: Duration, seen: &Observation) -> Option<Verdict> {
        if let Some(why) = &seen.hopeless {
            return Some(Verdict::Unhealthy(why.clone()));
        }
        self.failed_since
            .retain(|unit, _| seen.failed_units.contains(unit));
        for unit in &seen.failed_units {
            let since = *self.failed_since.entry(unit.clone()).or_insert(now);
            if now.saturating_sub(since) >= self.failed_is_final {
                let finding = Finding::unit_failed(unit);
                let known = seen.findings.iter().find(|it| it.name == finding.name);
                let before = if known.is_some_and(|it| it.before) {
                    BEFORE
                } else {
                    ""
                };
                return Some(Verdict::Unhealthy(format!("unit {unit} failed{before}")));
            }
        }
        let mut wrong: Vec<&Finding> = seen.findings.iter().filter(|f| !f.ok).collect();
        // A reason is cut where it gets long: what is new comes first.
        wrong.sort_by_key(|finding| finding.before);
        let wrong: Vec<String> = wrong.into_iter().map(ToString::to_string).collect();
        if wrong.is_empty() {
            let since = *self.well_since.get_or_insert(now);
            if now.saturating_sub(since) >= self.settle {
                return Some(Verdict::Healthy);
            }
        } else {
            self.well_since = None;
        }
        (now >= self.deadline).then(|| {
            Verdict::Unhealthy(if wrong.is_empty() {
                format!(
                    "well, but not for the {} s asked for, at the deadline of {} s",
                    self.settle.as_secs(),
                    self.deadline.as_secs()
                )
            } else {
                format!(
                    "not well after {} s: {}",
                    self.deadline.as_secs(),
                    wrong.join("; ")
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn seen(ok: bool) -> Observation {
        Observation {
            findings: vec![Finding::new(
                "node is Ready",
                if ok { Ok(()) } else { Err("False".into()) },
            )],
            ..Observation::default()
        }
    }

    #[test]
    fn healthy_only_after_settling_without_a_break() {
        let mut gate = Gate::new(s(100), s(10), FAILED_IS_FINAL);
        assert_eq!(gate.observe(s(0), &seen(true)), None);
        assert_eq!(gate.observe(s(9), &seen(true)), None);
        assert_eq!(gate.observe(s(10), &seen(false)), None);
        assert_eq!(gate.observe(s(11), &seen(true)), None);
        assert_eq!(gate.observe(s(20), &seen(true)), None);
        assert_eq!(gate.observe(s(21), &seen(true)), Some(Verdict::Healthy));
    }

    #[test]
    fn the_deadline_says_what_does_not_hold() {
        let mut gate = Gate::new(s(30), s(5), FAILED_IS_FINAL);
        assert_eq!(gate.observe(s(29), &seen(false)), None);
        assert_eq!(
            gate.observe(s(30), &seen(false)),
            Some(Verdict::Unhealthy(
                "not well after 30 s: node is Ready: False".into()
            ))
        );
    }

    #[test]
    fn what_cannot_come_right_is_final_at_once() {
        let mut gate = Gate::new(s(300), s(5), FAILED_IS_FINAL);
        let hopeless = Observation {
            hopeless: Some("create the cluster: failed".into()),
            ..seen(false)
        };
        assert!(matches!(
            gate.observe(s(1), &hopeless),
            Some(Verdict::Unhealthy(_))
        ));
    }

    #[test]
    fn a_failed_unit_is_final_unless_it_comes_back() {
        let mut gate = Gate::new(s(300), s(5), FAILED_IS_FINAL);
        let failed = Observation {
            failed_units: vec!["a.service".into()],
            ..seen(false)
        };
        assert_eq!(gate.observe(s(1), &failed), None);
        assert_eq!(gate.observe(s(10), &seen(false)), None);
        assert_eq!(gate.observe(s(11), &failed), None);
        assert_eq!(gate.observe(s(25), &failed), None);
        assert_eq!(
            gate.observe(s(26), &failed),
            Some(Verdict::Unhealthy("unit a.service failed".into()))
        );
    }
}
