//! What a profile turns into: files, actions in order, and a health plan. All of it is data.
//! `bootctl` writes, runs and watches it without knowing the name of any distribution.

use std::time::Duration;

use serde::Serialize;

/// The whole of what a profile asks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// The host name, any `{machine-id}` filled in. A valid DNS name of at most 63 bytes.
    pub hostname: String,
    /// Files to write, in no particular order; no path occurs twice. Directories that are missing
    /// are made root:root 0755.
    pub files: Vec<File>,
    /// Commands of the early phase, in order, after its files are written and before anything
    /// that depends on users, keys or the network's configuration.
    pub early: Vec<Step>,
    /// What `bootctl serve` does to bring the machine's purpose up, in order. One action ends
    /// before the next begins.
    pub bring_up: Vec<Action>,
    /// How it is told whether this machine is well.
    pub health: HealthPlan,
    /// Whether a `state` that is damaged beyond repair may be made anew.
    pub erases_damaged_state: bool,
    /// The address of the bundle that recovery installs by itself.
    pub recovery_installs: Option<String>,
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

/// How it is told whether a machine is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthPlan {
    /// How long after the start of `bootctl serve` the machine may take to be well.
    pub deadline: Duration,
    /// Everything must hold for this long without a break before the verdict is "healthy".
    pub settle: Duration,
    /// Whether any failed unit makes the machine unhealthy.
    pub units_failed: bool,
    /// Failed units that are nevertheless let pass.
    pub units_ignored: Vec<String>,
    /// Units that must be active.
    pub units: Vec<String>,
    /// Commands that must end with 0 and, where `expect` is given, print exactly that (white space
    /// at both ends aside).
    pub checks: Vec<Check>,
    /// Whether the gate may reboot a slot that is already good.
    pub gate_reboots_good: bool,
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
