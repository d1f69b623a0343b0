//! What is known of this start: what the initrd agent found (`/run/sternpost/boot.json`), what the image says it is,
//! and which boot it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use boot_core::slot::Target;
use profile::ImageFacts;
use serde::{Deserialize, Serialize};

use crate::failure::Result;
use crate::os::files::read_json;
use crate::os::paths::Paths;

/// What the initrd agent found out, in `/run/sternpost/boot.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootFacts {
    /// Version of this file.
    pub version: u32,
    /// `a`, `b` or `recovery`.
    pub slot: String,
    /// The whole disk; `null` in a recovery system that did not find it.
    #[serde(default)]
    pub disk: Option<String>,
    /// Device of each partition, by label.
    pub partitions: BTreeMap<String, PathBuf>,
    /// Where the table has each partition, by label.
    #[serde(default)]
    pub table: BTreeMap<String, TableEntry>,
    /// What is mounted as the root.
    #[serde(default)]
    pub root_device: Option<PathBuf>,
    /// Digest of the booted slot's manifest.
    #[serde(default)]
    pub manifest_digest: Option<String>,
    /// True on the first boot of this disk.
    #[serde(default)]
    pub first_boot: bool,
    /// The hardware watchdog that was opened.
    #[serde(default)]
    pub watchdog: Option<String>,
    /// Its time as the initrd set it.
    #[serde(default)]
    pub watchdog_seconds: Option<i32>,
    /// How the check of `state` ended.
    #[serde(default)]
    pub state: serde_json::Value,
    /// What went wrong without ending the start.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Monotonic microseconds of the steps.
    #[serde(default)]
    pub timeline: BTreeMap<String, serde_json::Value>,
}

/// An entry of the disk's partition table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl BootFacts {
    /// What keeps `state` from being used, if anything does.
    pub fn state_problem(&self) -> Option<StateProblem> {
        let degraded = self.state_says("status") == Some("degraded");
        degraded.then(|| match self.state_says("problem") {
            Some("missing") => StateProblem::Missing,
            Some("damaged") => StateProblem::Damaged,
            _ => StateProblem::Unusable,
        })
    }

    fn state_says(&self, name: &str) -> Option<&str> {
        self.state.get(name).and_then(serde_json::Value::as_str)
    }

    /// Why what this machine is to keep is not where it belongs, if so: `state` is in memory, or
    /// /var or another folder that persists is not bound to it. Such a machine looks empty.
    pub fn state_missing(&self) -> Option<String> {
        if self.state_problem().is_some() {
            let why = self.state_says("reason").unwrap_or("no reason was given");
            return Some(format!("the state partition is not in use: {why}"));
        }
        self.notes
            .iter()
            .find(|note| note.starts_with("binding "))
            .map(|note| format!("not everything that is to persist does: {note}"))
    }
}

/// What keeps `state` from being used; /state is in memory then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateProblem {
    /// There is no such partition.
    Missing,
    /// Damaged beyond what can be repaired without loss.
    Damaged,
    /// Not read, not written, or not known; it may be whole.
    Unusable,
}

/// What the image says it is.
pub fn image_facts(paths: &Paths) -> Result<ImageFacts> {
    read_json(&paths.image("image.json"))
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The one of that name.
pub(super) fn target_named(name: &str) -> Option<Target> {
    match name {
        "a" => Some(Target::A),
        "b" => Some(Target::B),
        "recovery" => Some(Target::Recovery),
        _ => None,
    }
}

/// `a`, `b` or `recovery`, as it stands in every JSON of ours.
pub fn target_name(target: Target) -> &'static str {
    match target {
        Target::A => "a",
        Target::B => "b",
        Target::Recovery => "recovery",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_bound_is_missing_state() {
        let facts = |notes: &[&str]| -> BootFacts {
            serde_json::from_value(serde_json::json!({
                "version": 1, "slot": "a", "partitions": {}, "notes": notes,
                "state": { "status": "ok", "reason": null },
            }))
            .unwrap()
        };
        assert_eq!(facts(&[]).state_missing(), None);
        let other = "growing the table of vda: too small";
        assert_eq!(facts(&[other]).state_missing(), None);
        let missing = facts(&[other, "binding /var: No such file or directory"]).state_missing();
        assert!(missing.unwrap().contains("binding /var"));
    }
}
