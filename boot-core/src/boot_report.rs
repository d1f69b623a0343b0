//! What the initrd agent tells the running system of a start: /run/sternpost/boot.json. Details: docs/formats/state.md.
//!
//! The agent and the `bootctl` that reads it are of one image, so every field is there, and one that is not makes the
//! file none. `bootctl` decides by the fields alone; the notes are for people.

use alloc::{collections::BTreeMap, format, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{manifest::Kind, slot::Target, types::Digest};

/// The version that this build writes. Whoever reads a report is of the image that wrote it.
pub const VERSION: u32 = 1;

/// Name of the file in /run/sternpost.
pub const FILE: &str = "boot.json";

/// One start. Written by the initrd agent alone; read by `bootctl`, in `machine/mod.rs` and `profile/choose.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootReport {
    /// Version of this file: 1.
    pub version: u32,
    /// What was started.
    pub slot: Target,
    /// What kind of system that is.
    pub kind: Kind,
    /// The whole disk, under /dev; none in a recovery system that did not find it.
    pub disk: Option<String>,
    /// Device of each partition that the kernel knows, by label.
    pub partitions: BTreeMap<String, String>,
    /// Where the table has each partition, by label.
    pub table: BTreeMap<String, TableEntry>,
    /// What is mounted as the root.
    pub root_device: String,
    /// Digest of the manifest that runs.
    pub manifest_digest: Digest,
    /// Whether the machine's identity was made in this start.
    pub first_boot: bool,
    /// What was made larger.
    pub grown: Grown,
    /// The hardware watchdog that was opened: its driver.
    pub watchdog: Option<String>,
    /// Its time as the agent set it; 0 if the driver does not say.
    pub watchdog_seconds: Option<i32>,
    /// How `state` is.
    pub state: StateReport,
    /// What is to persist and does not: each directory that is not bound to `state`, and why.
    pub unbound: Vec<String>,
    /// What else went wrong without ending the start.
    pub notes: Vec<String>,
    /// Microseconds since the kernel's start at which each step ended.
    pub timeline: BTreeMap<String, u64>,
}

/// An entry of the disk's partition table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its number, from 1.
    pub number: u32,
    /// The partition's GUID, lower case.
    pub guid: String,
    /// Its first byte on the disk.
    pub start: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// What was made larger in a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// The partition table.
    pub gpt: bool,
    /// The filesystem on `state`.
    pub state: bool,
}

/// How `state` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReport {
    /// In a word.
    pub status: StateStatus,
    /// What keeps it from being used, if it is degraded.
    pub problem: Option<StateProblem>,
    /// Why, if it is not ok.
    pub reason: Option<String>,
}

/// How `state` is, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateStatus {
    /// Mounted; nothing had to be repaired.
    #[default]
    Ok,
    /// Mounted after e2fsck repaired it.
    Repaired,
    /// Not mounted; /state is in memory.
    Degraded,
}

/// What keeps `state` from being used; /state is in memory then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateProblem {
    /// There is no such partition.
    Missing,
    /// What is on it is damaged beyond what can be repaired without loss.
    Damaged,
    /// It cannot be read or written, or is nothing that this version knows; it may be whole.
    Unusable,
}

impl BootReport {
    /// The report of a start of which nothing else is known yet.
    pub fn new(slot: Target, manifest_digest: Digest) -> Self {
        Self {
            version: VERSION,
            slot,
            kind: Kind::of(slot),
            disk: None,
            partitions: BTreeMap::new(),
            table: BTreeMap::new(),
            root_device: String::new(),
            manifest_digest,
            first_boot: false,
            grown: Grown::default(),
            watchdog: None,
            watchdog_seconds: None,
            state: StateReport::default(),
            unbound: Vec::new(),
            notes: Vec::new(),
            timeline: BTreeMap::new(),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Why what this machine is to keep is not where it belongs, if so: `state` is in memory, or /var or another
    /// directory that persists is not bound to it. Such a machine looks empty.
    pub fn state_missing(&self) -> Option<String> {
        if self.state.problem.is_some() {
            let why = self.state.reason.as_deref();
            let why = why.unwrap_or("no reason was given");
            return Some(format!("the state partition is not in use: {why}"));
        }
        let first = self.unbound.first()?;
        Some(format!("not everything that is to persist does: {first}"))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn what_is_not_bound_is_missing_however_it_is_worded() {
        let mut report = BootReport::new(Target::A, Digest::ZERO);
        report.notes = vec!["binding /var: only a note".into()];
        assert_eq!(report.state_missing(), None);
        report.unbound = vec!["making the folder /newroot/state/var: no room".into()];
        let missing = report.state_missing().unwrap();
        assert!(missing.contains("/newroot/state/var"), "{missing}");
        report.state.problem = Some(StateProblem::Damaged);
        let missing = report.state_missing().unwrap();
        assert!(missing.contains("no reason was given"), "{missing}");
    }

    #[test]
    fn what_was_written_is_read() {
        let report = BootReport::new(Target::Recovery, Digest::ZERO);
        let read: BootReport = serde_json::from_slice(&report.to_json()).unwrap();
        assert_eq!(read, report);
    }
}
