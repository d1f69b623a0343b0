//! `health`: what the gate sees now, and what its verdict was, for people and for scripts.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::failure::{Code, Failure, Result};
use crate::machine::Machine;
use crate::machine::facts;
use crate::output::Outcome;
use crate::service::report::Report;
use crate::service::step::Phase;

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Wait up to SECONDS for the machine to be healthy
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u32>,
}

/// `bootctl health`.
pub fn health(machine: &Machine, arguments: &Health) -> Result<Outcome> {
    let path = machine.paths().run("serve.json");
    let boot_id = facts::boot_id();
    let until = Instant::now() + Duration::from_secs(arguments.wait.unwrap_or(0).into());
    let report = loop {
        let report = Report::read(&path, &boot_id);
        let decided = report
            .as_ref()
            .is_some_and(|r| r.known.phase == Phase::GoingBack || r.unwell().is_none());
        if decided || Instant::now() >= until {
            break report;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let Some(report) = report else {
        return Err(Failure::new(
            Code::Failed,
            "the service has not said anything in this boot",
        )
        .doing(format!("reading {}", path.display()))
        .next("systemctl status sternpost.service"));
    };
    let unwell = report.unwell();
    let healthy = unwell.is_none();
    let json = json!({
        "healthy": healthy,
        "why": unwell,
        "phase": report.known.phase,
        "verdict": report.known.verdict,
        "reason": report.known.reason,
        "doing": report.doing,
        "deadline_seconds": report.deadline_seconds,
        "findings": report.findings,
        "looked_ms": report.looked_ms,
        "lanes": report.lanes,
        "degraded": report.degraded,
    });
    let mut outcome = Outcome::new(text(&report), json);
    if !healthy {
        outcome.code = Some(Code::Failed);
    }
    Ok(outcome)
}

fn text(report: &Report) -> String {
    let mut out = now_and_then(report);
    if let Some(doing) = &report.doing {
        let _ = write!(out, "\n  {doing}");
    }
    for finding in &report.findings {
        let mark = if finding.ok { "ok " } else { "NOT" };
        let _ = write!(out, "\n  {mark} {finding}");
    }
    for why in &report.degraded {
        let _ = write!(out, "\n  degraded: {why}");
    }
    out
}

/// What is, and what the verdict of this start was.
pub(super) fn now_and_then(report: &Report) -> String {
    let mut out = match report.unwell() {
        None => report.known.phase.words().to_owned(),
        Some(why) if report.known.phase == Phase::Healthy => format!("not well now: {why}"),
        Some(why) => why,
    };
    if let Some(verdict) = report.known.verdict {
        let reason = report.known.reason.as_deref().unwrap_or(verdict.word());
        let _ = write!(out, "\n  verdict of this start: {reason}");
    }
    out
}
