//! What each part of a machine (the host, a Kubernetes distribution, a VM runtime) adds to what a profile turns into.
//! All of it is data: `bootctl` writes, runs and watches it without knowing the name of any distribution.

use std::time::Duration;

use serde::Serialize;

/// What one part adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Files.
    pub files: Vec<File>,
    /// Actions of the bring-up, in order.
    pub bring_up: Vec<Action>,
    /// Units that must be active for the machine to be well.
    pub units: Vec<String>,
    /// Checks of its own.
    pub checks: Vec<Check>,
}

impl Contribution {
    pub(crate) fn merge(&mut self, other: Self) {
        self.files.extend(other.files);
        self.bring_up.extend(other.bring_up);
        self.units.extend(other.units);
        self.checks.extend(other.checks);
    }
}

/// A file to write.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct File {
    /// Absolute path, under /etc or /run.
    pub path: String,
    /// Permission bits. The owner is always root:root.
    pub mode: u32,
    /// What it contains. Never shown by `Debug` when `mode` keeps it from others.
    #[serde(skip)]
    pub content: Vec<u8>,
    /// When it has to be there.
    pub when: When,
}

impl core::fmt::Debug for File {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut shown = f.debug_struct("File");
        shown
            .field("path", &self.path)
            .field("mode", &format_args!("{:04o}", self.mode));
        if self.mode & 0o077 == 0 {
            shown.field("content", &"(secret)");
        } else {
            shown.field("content", &String::from_utf8_lossy(&self.content));
        }
        shown.field("when", &self.when).finish()
    }
}

/// When a file has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Before sysusers, networkd, sshd: `sternpost-render.service`.
    Early,
    /// Before the first action of the bring-up: `bootctl serve`.
    BringUp,
}

/// One thing to do during the bring-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Start a systemd unit and wait until its job is done. `attempts` and `timeout` of a step do
    /// not apply: the unit's own settings do.
    Start {
        /// Its name, with suffix.
        unit: String,
    },
    /// Run a command.
    Run(Step),
}

/// A command, and when to run it. Never a shell line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does, for people: "create the cluster".
    pub name: String,
    /// Program (absolute path) and arguments.
    pub command: Vec<String>,
    /// Added to an otherwise minimal environment.
    pub env: Vec<(String, String)>,
    /// All must hold, or the step is skipped.
    pub conditions: Vec<Condition>,
    /// After the command has ended well: this content is put at this path, atomically (written
    /// beside it, synced, renamed). How a step remembers that it was done.
    pub stamp: Option<Stamp>,
    /// Run, if its own conditions hold, before each attempt after the first. Where it fails, so
    /// does the attempt.
    pub recover: Option<Box<Step>>,
    /// After this the command is killed and the attempt has failed.
    pub timeout: Duration,
    /// How often to try, at least 1.
    pub attempts: u32,
    /// Pause between attempts.
    pub pause: Duration,
    /// A failure after the last attempt ends the phase if set; else it is logged and the next
    /// action follows.
    pub required: bool,
}

/// A condition on the file system. What cannot be read neither holds nor does not: the step fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Something is at this path.
    Exists {
        /// Absolute path.
        path: String,
    },
    /// Nothing is at this path: that, and no other error, is what looking there says.
    Missing {
        /// Absolute path.
        path: String,
    },
    /// The file at this path is not there or contains anything else than exactly this (a stamp).
    Differs {
        /// Absolute path.
        path: String,
        /// The content that it is compared with.
        content: String,
    },
}

/// What a step leaves behind to say that it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Absolute path; its directory may have to be made.
    pub path: String,
    /// Content.
    pub content: String,
}

/// One command that tells something about the machine's health. It changes nothing and may be run
/// as often as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must hold, for people: "node edge-1 is Ready".
    pub name: String,
    /// Program (absolute path) and arguments.
    pub command: Vec<String>,
    /// Added to an otherwise minimal environment.
    pub env: Vec<(String, String)>,
    /// Expected standard output.
    pub expect: Option<String>,
    /// After this the command is killed and the check has failed.
    pub timeout: Duration,
}

/// The first line of whatever is rendered in a format with `#` comments.
pub(crate) const HEADER: &str =
    "# Rendered from the profile at every boot; changes here are lost.\n";

/// A file that anybody may read.
pub(crate) fn file(path: impl Into<String>, content: impl Into<String>, when: When) -> File {
    File {
        path: path.into(),
        mode: 0o644,
        content: content.into().into_bytes(),
        when,
    }
}

impl Step {
    /// A step that must succeed, once tried, within a minute.
    pub(crate) fn new(name: impl Into<String>, command: &[&str]) -> Self {
        Self {
            name: name.into(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            conditions: Vec::new(),
            stamp: None,
            recover: None,
            timeout: Duration::from_secs(60),
            attempts: 1,
            pause: Duration::from_secs(2),
            required: true,
        }
    }

    pub(crate) fn within(mut self, seconds: u64) -> Self {
        self.timeout = Duration::from_secs(seconds);
        self
    }

    pub(crate) fn tries(mut self, attempts: u32, pause_seconds: u64) -> Self {
        self.attempts = attempts;
        self.pause = Duration::from_secs(pause_seconds);
        self
    }

    pub(crate) fn only_if(mut self, conditions: &[crate::Condition]) -> Self {
        self.conditions.extend_from_slice(conditions);
        self
    }

    pub(crate) fn leaves(mut self, path: &str, content: &str) -> Self {
        self.stamp = Some(crate::Stamp {
            path: path.into(),
            content: content.into(),
        });
        self
    }

    pub(crate) fn recover(mut self, step: Self) -> Self {
        self.recover = Some(Box::new(step));
        self
    }

    pub(crate) fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}

impl From<Step> for Action {
    fn from(step: Step) -> Self {
        Self::Run(step)
    }
}
