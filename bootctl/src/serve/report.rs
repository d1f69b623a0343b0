//! What the service says about itself, in `/run/sternpost/serve.json`: `status` and `health` read it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gate::Finding;
use crate::machine::write_whole;

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
    /// What the gate sees.
    pub findings: Vec<Finding>,
    /// `healthy` or `unhealthy`, once there is a verdict.
    pub verdict: Option<String>,
    /// Why that verdict.
    pub reason: Option<String>,
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
            phase: Phase::Starting,
            doing: None,
            deadline_seconds: 0,
            findings: Vec::new(),
            verdict: None,
            reason: None,
            verdict_ms: None,
            degraded: Vec::new(),
        }
    }

    /// Adds a reason to be degraded, once.
    pub fn degrade(&mut self, why: impl Into<String>) {
        let why = why.into();
        if !self.degraded.contains(&why) {
            self.degraded.push(why);
        }
    }

    /// The one that a service left at `path` during the boot `boot_id`.
    pub fn read(path: &Path, boot_id: &str) -> Option<Self> {
        crate::machine::read_json::<Self>(path)
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
