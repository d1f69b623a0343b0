//! What the service says about itself, in `/run/sternpost/serve.json`: `status` and `health` read it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::Finding;
use crate::bring_up::lanes::{LaneState, now_ms};
use crate::os::files::write_whole;

/// After this without a look, what was seen last says nothing any more. The service looks every two minutes, and one look
/// takes as long as all checks may.
const STALE: Duration = Duration::from_secs(900);

/// Where the service has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the bring-up.
    Starting,
    /// Brings up what the profile asks for.
    BringingUp,
    /// Waits for everything to hold.
    Watching,
    /// The verdict was "healthy".
    Healthy,
    /// The verdict was "unhealthy", and the machine stays up.
    Degraded,
    /// On the way into the other slot.
    GoingBack,
}

impl Phase {
    /// As people read it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::BringingUp => "bringing up",
            Self::Watching => "watching",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::GoingBack => "going back to the other slot",
        }
    }
}

/// Whether the whole root was read, after an end that was not a clean shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootRead {
    /// There was no reason to.
    #[default]
    NotAsked,
    /// Under way, or cut off.
    Pending,
    /// It is what was signed.
    Sound,
    /// It is not.
    Damaged,
    /// It could not be read, for another reason than damage.
    Failed,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this file.
    pub version: u32,
    /// Id of the boot that it is about.
    pub boot_id: String,
    /// Milliseconds after the kernel's start at which the service first started.
    pub started_ms: u64,
    /// Where it has come to.
    pub phase: Phase,
    /// What the bring-up is doing.
    pub doing: Option<String>,
    /// How long the machine may take to be well.
    pub deadline_seconds: u64,
    /// What the gate saw when it last looked.
    pub findings: Vec<Finding>,
    /// Milliseconds after the kernel's start at which it last looked, before the verdict and after it.
    #[serde(default)]
    pub looked_ms: u64,
    /// Where each lane of the bring-up stands.
    #[serde(default)]
    pub lanes: Vec<LaneState>,
    /// `healthy` or `unhealthy`, once there is a verdict.
    pub verdict: Option<String>,
    /// Why that verdict.
    pub reason: Option<String>,
    /// Milliseconds after the kernel's start at which there was a verdict.
    pub verdict_ms: Option<u64>,
    /// Whether everything was brought up, once that has ended.
    #[serde(default)]
    pub brought_up: Option<bool>,
    /// Whether the slot had yet to prove itself when this boot began.
    #[serde(default)]
    pub on_trial: bool,
    /// About the root.
    #[serde(default)]
    pub root: RootRead,
    /// What is wrong though the machine stays up.
    pub degraded: Vec<String>,
}

impl Report {
    /// The first one of a boot.
    pub fn new(boot_id: String, started_ms: u64) -> Self {
        Self {
            version: 1,
            boot_id,
            started_ms,
            phase: Phase::Starting,
            doing: None,
            deadline_seconds: 0,
            findings: Vec::new(),
            looked_ms: started_ms,
            lanes: Vec::new(),
            verdict: None,
            reason: None,
            verdict_ms: None,
            brought_up: None,
            on_trial: false,
            root: RootRead::NotAsked,
            degraded: Vec::new(),
        }
    }

    /// Takes in what was seen just now.
    pub(crate) fn saw(&mut self, findings: Vec<Finding>) {
        self.findings = findings;
        self.looked_ms = now_ms();
    }

    /// Why the machine is not well *now*. A verdict is history: what held then may not hold any more.
    pub fn unwell(&self) -> Option<String> {
        self.unwell_at(now_ms())
    }

    fn unwell_at(&self, now_ms: u64) -> Option<String> {
        if self.phase != Phase::Healthy {
            return Some(self.phase.words().to_owned());
        }
        let silent = Duration::from_millis(now_ms.saturating_sub(self.looked_ms));
        if silent > STALE {
            return Some(format!("nobody has looked for {} s", silent.as_secs()));
        }
        let wrong: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| !finding.ok)
            .map(ToString::to_string)
            .collect();
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    /// Adds a reason to be degraded, once.
    pub fn degrade(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.degraded.contains(&why) {
            self.degraded.push(why);
        }
    }

    /// Whether a machine that stayed up may still be called healthy, should everything hold: not if
    /// the bring-up failed or has not ended, and not before the root is known to be whole. That a
    /// damaged one runs so far says nothing about the blocks not yet read.
    pub fn may_come_right(&self) -> bool {
        self.brought_up == Some(true) && !matches!(self.root, RootRead::Pending | RootRead::Damaged)
    }

    /// The one that a service left at `path` during the boot `boot_id`.
    pub fn read(path: &Path, boot_id: &str) -> Option<Self> {
        crate::os::files::read_json::<Self>(path)
            .ok()
            .filter(|report| report.boot_id == boot_id)
    }
}

/// Writes the report whenever it has changed.
#[derive(Debug)]
pub(crate) struct Reporter {
    path: PathBuf,
    last: Option<Report>,
}

impl Reporter {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, last: None }
    }

    pub(crate) fn write(&mut self, report: &Report) {
        if self.last.as_ref() == Some(report) {
            return;
        }
        let written = serde_json::to_vec_pretty(report)
            .map_err(std::io::Error::other)
            .and_then(|json| write_whole(&self.path, &json, 0o644, false));
        match written {
            Ok(()) => self.last = Some(report.clone()),
            Err(e) => eprintln!("bootctl: writing {}: {e}", self.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_condemned_does_not_come_right_by_itself() {
        let mut report = Report::new("boot".into(), 0);
        assert!(!report.may_come_right(), "nothing was brought up");
        report.brought_up = Some(true);
        assert!(report.may_come_right());
        for (root, may) in [
            (RootRead::Pending, false),
            (RootRead::Damaged, false),
            (RootRead::Sound, true),
            (RootRead::Failed, true),
        ] {
            report.root = root;
            assert_eq!(report.may_come_right(), may, "{root:?}");
        }
        report.root = RootRead::Sound;
        report.brought_up = Some(false);
        assert!(!report.may_come_right());
    }

    /// The API server may have died months after the verdict.
    #[test]
    fn a_verdict_of_the_past_does_not_make_a_machine_well() {
        let mut report = Report::new("boot".into(), 0);
        let seen = |ok: bool| {
            let result = if ok { Ok(()) } else { Err("refused".into()) };
            vec![Finding::new("the API server is ready", result)]
        };
        report.saw(seen(true));
        assert_eq!(report.unwell().as_deref(), Some("starting"));
        report.phase = Phase::Healthy;
        report.verdict = Some("healthy".into());
        assert_eq!(report.unwell(), None);
        report.saw(seen(false));
        assert_eq!(
            report.unwell().as_deref(),
            Some("the API server is ready: refused")
        );
        report.saw(seen(true));
        let later = |seconds: u64| report.unwell_at(report.looked_ms + seconds * 1000);
        assert_eq!(later(900), None);
        assert_eq!(
            later(901).as_deref(),
            Some("nobody has looked for 901 s"),
            "the service is dead"
        );
    }

    #[test]
    fn a_service_that_is_started_again_knows_what_it_condemned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serve.json");
        let mut report = Report::new("boot".into(), 0);
        report.brought_up = Some(false);
        report.root = RootRead::Damaged;
        Reporter::new(path.clone()).write(&report);
        assert_eq!(Report::read(&path, "boot"), Some(report));
        assert_eq!(Report::read(&path, "another"), None);
    }
}
