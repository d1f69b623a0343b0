//! What the service says about itself, in `/run/sternpost/serve.json`: `status` and `health` read it.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::step::{Known, Phase};
use crate::bring_up::lanes::{LaneState, now_ms};
use crate::health::gate::Finding;
use crate::machine::facts::boot_id;
use crate::os::clock;
use crate::os::files::{read_json, write_atomic};
use crate::os::notify::Notify;

/// After this without a look, what was seen last says nothing any more. The service looks every two minutes, and one look
/// takes as long as all checks may.
const STALE: Duration = Duration::from_secs(900);

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Version of this file.
    pub version: u32,
    /// Id of the boot that it is about.
    pub boot_id: String,
    /// Milliseconds after the kernel's start at which the service first started.
    pub started_ms: u64,
    /// Where it has come to, and what its decisions depend on.
    #[serde(flatten)]
    pub known: Known,
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
    /// Milliseconds after the kernel's start at which there was a verdict.
    pub verdict_ms: Option<u64>,
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
            known: Known::default(),
            doing: None,
            deadline_seconds: 0,
            findings: Vec::new(),
            looked_ms: started_ms,
            lanes: Vec::new(),
            verdict_ms: None,
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
        if self.known.phase != Phase::Healthy {
            return Some(self.known.phase.words().to_owned());
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

    /// The one that a service left at `path` during the boot `boot_id`.
    pub fn read(path: &Path, boot_id: &str) -> Option<Self> {
        read_json::<Self>(path)
            .ok()
            .filter(|report| report.boot_id == boot_id)
    }
}

/// The report of the service that runs, written whenever it has changed.
pub(super) struct Reporter {
    /// What is to be said.
    pub(super) report: Report,
    path: PathBuf,
    written: Option<Report>,
    notify: Rc<Notify>,
}

impl Reporter {
    /// Goes on with what a service left that ran before in this boot.
    pub(super) fn new(path: PathBuf, notify: Rc<Notify>) -> Self {
        let boot_id = boot_id();
        let report = Report::read(&path, &boot_id).unwrap_or_else(|| {
            let started = u64::try_from(clock::since_boot().as_millis()).unwrap_or(0);
            Report::new(boot_id, started)
        });
        Self {
            report,
            path,
            written: None,
            notify,
        }
    }

    /// Since the service first started in this boot.
    pub(super) fn elapsed(&self) -> Duration {
        clock::since_boot().saturating_sub(Duration::from_millis(self.report.started_ms))
    }

    /// Says it, to systemd and in the file.
    pub(super) fn show(&mut self) {
        let words = self.report.known.phase.words();
        self.notify.status(&match &self.report.doing {
            Some(doing) => format!("{words}: {doing}"),
            None => words.to_owned(),
        });
        if self.written.as_ref() == Some(&self.report) {
            return;
        }
        let written = serde_json::to_vec_pretty(&self.report)
            .map_err(std::io::Error::other)
            .and_then(|json| write_atomic(&self.path, &json, 0o644));
        match written {
            Ok(()) => self.written = Some(self.report.clone()),
            Err(e) => eprintln!("bootctl: writing {}: {e}", self.path.display()),
        }
    }

    /// Adds a reason why the machine is not well, once, and says it.
    pub(super) fn degrade(&mut self, why: impl Into<String>) {
        let why = why.into();
        eprintln!("bootctl: degraded: {why}");
        if !self.report.degraded.contains(&why) {
            self.report.degraded.push(why);
        }
        self.show();
    }
}

#[cfg(test)]
mod tests {
    use super::super::step::{RootRead, Spoken};
    use super::*;

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
        report.known.phase = Phase::Healthy;
        report.known.verdict = Some(Spoken::Healthy);
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
        let begin = || Reporter::new(path.clone(), Rc::new(Notify::from_environment()));
        let mut reporter = begin();
        let known = &mut reporter.report.known;
        known.verdict = Some(Spoken::Unhealthy);
        known.brought_up = Some(false);
        known.root = RootRead::Damaged;
        known.condemned = true;
        reporter.show();
        assert_eq!(begin().report, reporter.report);
        assert_eq!(Report::read(&path, "another"), None);
        // What the service of the version before leaves.
        let text = std::fs::read_to_string(&path).unwrap();
        let older = text.replace("\"condemned\": true,", "");
        assert_ne!(older, text);
        std::fs::write(&path, older).unwrap();
        let known = begin().report.known;
        assert_eq!((known.condemned, known.brought_up), (false, Some(false)));
    }
}
