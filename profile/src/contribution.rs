//! What each part of a machine (the host, a Kubernetes distribution, a VM runtime) adds to what a profile turns into.
//! All of it is data: `bootctl` writes, runs and watches it without knowing the name of any distribution.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::Workload;

/// What one part adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// No path that another part writes.
    pub files: Vec<File>,
    /// What brings it up. A lane may come after those that are listed before it, of any part.
    pub lanes: Vec<Lane>,
    /// Units that must be active for the machine to be well.
    pub units: Vec<String>,
    /// What else must hold for the machine to be well, what comes first first.
    pub checks: Vec<Check>,
}

impl Contribution {
    pub(crate) fn merge(&mut self, other: Self) {
        self.files.extend(other.files);
        self.lanes.extend(other.lanes);
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

/// Steps that follow one another. What does not depend on one another is in lanes of its own and does not wait for one
/// another: a full disk that refuses an image keeps no kubelet from making room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// What it brings up, for people and in `bootctl status`: `container runtime`. No two have one name.
    pub name: String,
    /// Lanes that must be through before this one begins.
    pub after: Vec<String>,
    /// Each begins when the one before it has ended well, and is tried for as long as the machine runs.
    pub steps: Vec<Step>,
}

impl Lane {
    pub(crate) fn new(name: &str, after: &[&str], steps: Vec<Step>) -> Self {
        Self {
            name: name.into(),
            after: after.iter().map(|&lane| lane.to_owned()).collect(),
            steps,
        }
    }
}

/// How long a question to the Kubernetes API may take, at the bring-up and afterwards: an emulated machine that brings
/// up its control plane answers within a few seconds, or with an error.
pub(crate) const QUESTION: Duration = Duration::from_secs(30);

/// One thing to do, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it does, for people: "create the cluster".
    pub name: String,
    /// The work itself.
    pub work: Work,
    /// All must hold, or there is nothing to do. Looked at before each attempt.
    pub conditions: Vec<Condition>,
    /// After the work has ended well: this content is put at this path, atomically (written
    /// beside it, synced, renamed). How a step remembers that it was done.
    pub stamp: Option<Stamp>,
    /// Done, if its own conditions hold, before each attempt after the first. Where it fails, so
    /// does the attempt.
    pub recover: Option<Box<Step>>,
    /// After so many attempts, at least 1, the step counts as failed. In a lane it is still tried,
    /// after pauses that grow.
    pub attempts: u32,
    /// Pause between those attempts.
    pub pause: Duration,
    /// Of early steps, which are not tried again: whether a failure ends the phase. Else it is
    /// logged and the next step follows.
    pub required: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Starts a systemd unit and waits until its job is done.
    Start {
        /// Its name, with suffix.
        unit: String,
    },
    /// Runs a command. Never a shell line.
    Run {
        /// Program (absolute path) and arguments.
        command: Vec<String>,
        /// Added to an otherwise minimal environment.
        env: Vec<(String, String)>,
        /// After this the command is killed and the attempt has failed.
        timeout: Duration,
    },
    /// Asks the Kubernetes API, and is done when what was asked holds.
    Ask {
        /// Absolute path of the kubeconfig that says where the API is and who asks.
        kubeconfig: String,
        /// What is asked.
        question: Question,
        /// After this the attempt has failed.
        timeout: Duration,
    },
    /// Applies the objects of a file of YAML documents in the cluster, server-side.
    Apply {
        /// Absolute path of the kubeconfig that says where the API is and who asks.
        kubeconfig: String,
        /// Absolute path of the file.
        file: String,
        /// After this the attempt has failed.
        timeout: Duration,
    },
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

/// One thing that must hold for the machine to be well. Looking changes nothing and may be done as often as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What must hold, for people: "node edge-1 is Ready".
    pub name: String,
    /// How it is looked at.
    pub probe: Probe,
    /// Whose fault it is, most likely, if it does not hold.
    pub blame: Blame,
    /// After this it does not hold.
    pub timeout: Duration,
}

/// How a check looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// A command that must end with 0.
    Command {
        /// Program (absolute path) and arguments.
        command: Vec<String>,
        /// What it has to print, white space at both ends aside.
        expect: Option<String>,
    },
    /// A question to the Kubernetes API.
    Kubernetes {
        /// Absolute path of the kubeconfig that says where it is and who asks.
        kubeconfig: String,
        /// What is asked.
        question: Question,
    },
}

/// What the Kubernetes API can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Whether it is ready itself.
    ApiReady,
    /// Whether a node is Ready as of this boot: what its kubelet said before may still be written there.
    NodeReady {
        /// Its name.
        node: String,
        /// [`MachineFacts::boot_id`](crate::MachineFacts::boot_id).
        boot_id: String,
    },
    /// Whether a workload runs as it was last asked for, in all its replicas.
    RolledOut(Workload),
}

/// Whose fault a failure is. It is shown in `status` and decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// What the image brings.
    Image,
    /// What the site brings: its workloads, network, servers.
    Site,
    /// The machine: its disks, memory, clock.
    Machine,
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
    /// A command that has a minute, and counts as failed at once.
    pub(crate) fn run(name: impl Into<String>, command: &[&str]) -> Self {
        Self::new(
            name.into(),
            Work::Run {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                env: Vec::new(),
                timeout: Duration::from_secs(60),
            },
        )
    }

    /// The start of a systemd unit, which counts as failed at once.
    pub(crate) fn start(unit: &str) -> Self {
        Self::new(format!("start {unit}"), Work::Start { unit: unit.into() })
    }

    /// A question to the Kubernetes API that has half a minute, and counts as failed at once.
    pub(crate) fn ask(name: &str, kubeconfig: &str, question: Question) -> Self {
        Self::new(
            name.into(),
            Work::Ask {
                kubeconfig: kubeconfig.into(),
                question,
                timeout: QUESTION,
            },
        )
    }

    /// Objects for the Kubernetes API, which has a minute, and counts as failed at once.
    pub(crate) fn apply(name: &str, kubeconfig: &str, file: &str) -> Self {
        Self::new(
            name.into(),
            Work::Apply {
                kubeconfig: kubeconfig.into(),
                file: file.into(),
                timeout: Duration::from_secs(60),
            },
        )
    }

    fn new(name: String, work: Work) -> Self {
        Self {
            name,
            work,
            conditions: Vec::new(),
            stamp: None,
            recover: None,
            attempts: 1,
            pause: Duration::from_secs(2),
            required: true,
        }
    }

    pub(crate) fn within(mut self, seconds: u64) -> Self {
        match &mut self.work {
            Work::Start { .. } => {}
            Work::Run { timeout, .. } | Work::Ask { timeout, .. } | Work::Apply { timeout, .. } => {
                *timeout = Duration::from_secs(seconds);
            }
        }
        self
    }

    pub(crate) fn with_env(mut self, key: &str, value: &str) -> Self {
        if let Work::Run { env, .. } = &mut self.work {
            env.push((key.into(), value.into()));
        }
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
