//! Disk images.

use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::record::{Record, SlotEntry};
use boot_core::slot_header::{self, HeaderError, ReadSlotError};
use boot_core::store::BootState;
use boot_core::{Device as _, Slot, Target};
use serde::Serialize;

use super::{KeyringReport, ManifestReport, StateReport};
use crate::output::gpt::{self, Table};
use crate::output::image::Region;

/// What a disk image holds.
#[derive(Debug, Serialize)]
pub struct DiskReport {
    pub table: Table,
    pub boot_state: Option<BootStateReport>,
    /// `boot-a`, `boot-b`, `boot-r`.
    pub slots: Vec<SlotReport>,
    /// What the machine left on `state`.
    pub state: Option<StateReport>,
}

/// The boot-state record and the rings.
#[derive(Debug, Serialize)]
pub struct BootStateReport {
    pub copies: [String; 2],
    /// The newest valid record.
    pub record: Option<RecordReport>,
    /// Events, oldest first.
    pub events: Vec<EventReport>,
    /// Images that failed.
    pub quarantine: Vec<QuarantineReport>,
}

#[derive(Debug, Serialize)]
pub struct RecordReport {
    pub sequence: u64,
    /// Started last.
    pub last_tried: Option<String>,
    /// Started next, once.
    pub one_shot: Option<String>,
    pub floor: u64,
    pub recovery_floor: u64,
    pub keyring_floor: u64,
    pub recovery_keyring_floor: u64,
    /// Slot A.
    pub a: EntryReport,
    /// Slot B.
    pub b: EntryReport,
}

/// What the record says of a slot.
#[derive(Debug, Serialize)]
pub struct EntryReport {
    pub status: String,
    pub priority: u8,
    /// Tries left.
    pub tries: u8,
    /// Whether it was marked good.
    pub successful: bool,
    /// Starts since userland was last seen up.
    pub failure_streak: u16,
    /// Version of its image.
    pub version: String,
    /// Digest of its manifest.
    pub manifest_digest: String,
}

/// One event.
#[derive(Debug, Serialize)]
pub struct EventReport {
    pub sequence: u64,
    /// Seconds since 1970, 0 if the clock was not known.
    pub time: i64,
    pub stage: String,
    pub slot: Option<String>,
    pub kind: String,
    pub text: String,
}

/// One image that failed.
#[derive(Debug, Serialize)]
pub struct QuarantineReport {
    /// Digest of its manifest.
    pub manifest_digest: String,
    /// Seconds since 1970, 0 if the clock was not known.
    pub time: i64,
    pub reason: String,
}

/// What a slot's boot partition holds.
#[derive(Debug, Serialize)]
pub struct SlotReport {
    /// `boot-a`, `boot-b` or `boot-r`.
    pub label: &'static str,
    /// Nothing is installed.
    pub empty: bool,
    /// Why it cannot be read, if it cannot.
    pub problem: Option<String>,
    #[serde(flatten)]
    pub manifest: Option<ManifestReport>,
    pub keyring: Option<KeyringReport>,
}

impl DiskReport {
    /// Reads a disk image's facts; what is damaged is said in its place.
    pub fn read(path: &Path) -> Result<Self> {
        let what = || format!("reading the disk image {}", path.display());
        let (image, table) = gpt::open(path)?;
        let boot_state = match table.region(&image, "boot-state") {
            Ok(region) => Some(BootStateReport::read(region).with_context(what)?),
            Err(_) => None,
        };
        let slots = Target::ALL
            .into_iter()
            .map(|target| match table.region(&image, target.label_boot()) {
                Ok(region) => SlotReport::read(target, region),
                Err(error) => SlotReport::broken(target, error.to_string()),
            })
            .collect();
        let place = table.partitions.iter().find(|it| it.label == "state");
        let state = place.map(|place| {
            let region = Region::new(image.clone(), place.start, place.size);
            let mut report = StateReport::read(region);
            if place.start.saturating_add(place.size) > image.size() {
                let problem = format!(
                    "the partition lies outside of the file, which ends at {} bytes: it is cut short",
                    image.size()
                );
                report.problems.insert(0, problem);
            }
            report
        });
        Ok(Self {
            table,
            boot_state,
            slots,
            state,
        })
    }
}

impl BootStateReport {
    fn read(region: Region) -> Result<Self> {
        let mut state = BootState::new(region);
        let loaded = state.load();
        let events = state.events()?;
        let quarantine = state.quarantined()?;
        Ok(Self {
            copies: loaded.copies.map(|copy| copy.to_string()),
            record: loaded.record.as_ref().map(RecordReport::new),
            events: events
                .into_iter()
                .map(|event| EventReport {
                    sequence: event.sequence,
                    time: event.time,
                    stage: event.stage.name().to_owned(),
                    slot: event.slot.map(|target| target.to_string()),
                    kind: event.kind.name().to_owned(),
                    text: event.text,
                })
                .collect(),
            quarantine: quarantine
                .into_iter()
                .map(|entry| QuarantineReport {
                    manifest_digest: entry.digest.to_string(),
                    time: entry.time,
                    reason: entry.reason,
                })
                .collect(),
        })
    }
}

impl RecordReport {
    fn new(record: &Record) -> Self {
        let target = |target: Option<Target>| target.map(|target| target.to_string());
        Self {
            sequence: record.sequence,
            last_tried: target(record.last_tried),
            one_shot: target(record.one_shot),
            floor: record.floors.system.security_version.0,
            recovery_floor: record.floors.recovery.security_version.0,
            keyring_floor: record.floors.system.keyring_serial.0,
            recovery_keyring_floor: record.floors.recovery.keyring_serial.0,
            a: EntryReport::new(record.slot(Slot::A)),
            b: EntryReport::new(record.slot(Slot::B)),
        }
    }
}

impl EntryReport {
    fn new(entry: &SlotEntry) -> Self {
        Self {
            status: entry.status().to_string(),
            priority: entry.priority,
            tries: entry.tries,
            successful: entry.successful,
            failure_streak: entry.failure_streak,
            version: entry.version.to_string(),
            manifest_digest: entry.digest.to_string(),
        }
    }
}

impl SlotReport {
    fn read(target: Target, mut region: Region) -> Self {
        let parts = match slot_header::read_slot(&mut region) {
            Ok(parts) => parts,
            Err(ReadSlotError::Header(HeaderError::Empty)) => {
                return Self {
                    empty: true,
                    ..Self::broken(target, None)
                };
            }
            Err(error) => return Self::broken(target, error.to_string()),
        };
        match (
            ManifestReport::read(&parts.envelope),
            KeyringReport::read(&parts.keyring),
        ) {
            (Ok(manifest), Ok(keyring)) => Self {
                label: target.label_boot(),
                empty: false,
                problem: None,
                manifest: Some(manifest),
                keyring: Some(keyring),
            },
            (Err(error), _) => Self::broken(target, format!("{error:#}")),
            (_, Err(error)) => Self::broken(
                target,
                format!("the keyring chain cannot be read: {error:#}"),
            ),
        }
    }

    fn broken(target: Target, problem: impl Into<Option<String>>) -> Self {
        Self {
            label: target.label_boot(),
            empty: false,
            problem: problem.into(),
            manifest: None,
            keyring: None,
        }
    }
}
