//! Gathers what there is to say. Reads only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use block_file::Access;
use boot_core::boot_report::StateReport;
use boot_core::floor::Level;
use boot_core::hand_over::{Rejection, Timer};
use boot_core::record::Record;
use boot_core::select::{Selector, Why};
use boot_core::slot_header::read_header;
use boot_core::trust::Trust;
use boot_core::{Digest, KeyringSerial, Nonce, SecurityVersion, Slot, Target, Version};
use profile::Diagnostic;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::problems::{self, Problem};
use crate::boot::{self, slot_check};
use crate::failure::Result;
use crate::loader::efi::{self, Variables};
use crate::loader::{Esp, Update, under_way};
use crate::machine::Machine;
use crate::machine::disk::{DiskFacts, errors_of_state};
use crate::machine::facts::boot_id;
use crate::os::clock::Clock;
use crate::os::paths::Paths;
use crate::profile::apply;
use crate::profile::choose::{self, ChosenProfile};
use crate::service::report::Report;
use crate::watchdog::{self, Stretch};

/// What `bootctl status --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Status {
    /// Version of this format.
    pub version: u32,
    /// What runs.
    pub booted: Booted,
    /// What the loader would start now.
    #[schemars(with = "Option<String>")]
    pub next: Option<Target>,
    /// What the slots hold; null if the record cannot be read.
    pub slots: Option<Slots>,
    /// The boot-state record.
    pub record: RecordFacts,
    /// The floors that this start went by; null from a loader that did not say.
    pub floors: Option<FloorFacts>,
    /// What the service says; null if it has not said anything in this boot.
    pub health: Option<Report>,
    /// Why the machine is not well now.
    pub unwell: Option<String>,
    /// What ends a hang.
    pub watchdog: Watchdog,
    /// The state filesystem.
    pub state: State,
    /// The disk that the machine was started from.
    pub disk: Option<DiskFacts>,
    /// Both EFI system partitions.
    pub esps: Esps,
    /// The update of the loader that is under way.
    pub loader_update: Option<Update>,
    /// Whether there is a slot header in each boot partition.
    pub headers: Headers,
    /// The profile that was applied in this boot.
    pub profile: Option<Profile>,
    /// What is known of the clock.
    pub clock: Option<Clock>,
    /// Monotonic microseconds of the initrd's steps.
    pub timeline: BTreeMap<String, u64>,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

/// What runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Booted {
    /// `a`, `b` or `recovery`.
    #[schemars(with = "String")]
    pub slot: Target,
    /// Why the loader chose it; null where no loader of ours said it.
    #[schemars(with = "Option<String>")]
    pub why: Option<Why>,
    /// Its product.
    pub product: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// SHA-256 of its manifest.
    #[schemars(with = "String")]
    pub manifest: Digest,
    /// Whether it is marked good.
    pub good: bool,
    /// Whether the loader could record the start.
    pub recorded: Option<bool>,
    /// The number of this start.
    #[schemars(with = "Option<String>")]
    pub nonce: Option<Nonce>,
    /// Version of the loader.
    pub loader: Option<String>,
    /// Whether Secure Boot is on.
    pub secure_boot: Option<bool>,
    /// What the loader did not start: `slot` and `reason`.
    #[schemars(with = "Option<Vec<BTreeMap<String, String>>>")]
    pub rejected: Option<Vec<Rejection>>,
    /// What is mounted as the root.
    pub root_device: String,
    /// The disk.
    pub disk: Option<String>,
    /// Whether it is the first boot of this disk.
    pub first_boot: bool,
}

/// Both slots.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Slots {
    /// Slot A.
    pub a: SlotFacts,
    /// Slot B.
    pub b: SlotFacts,
}

impl Slots {
    /// Each with its name.
    pub fn each(&self) -> [(Slot, &SlotFacts); 2] {
        [(Slot::A, &self.a), (Slot::B, &self.b)]
    }
}

/// One slot.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SlotFacts {
    /// `empty`, `staged`, `trial`, `unproven`, `given-up` or `good`.
    pub status: &'static str,
    /// Version of its image.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// SHA-256 of its manifest.
    #[schemars(with = "Option<String>")]
    pub manifest: Option<Digest>,
    /// Security version of its image.
    #[schemars(with = "u32")]
    pub security_version: SecurityVersion,
    /// The higher one is started first.
    pub priority: u8,
    /// Starts that are left without a verdict.
    pub tries: u8,
    /// Starts in a row that did not reach userland.
    pub failure_streak: u16,
    /// Whether it runs.
    pub booted: bool,
    /// Whether its manifest is in quarantine.
    pub quarantined: bool,
}

/// The boot-state record.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RecordFacts {
    /// Counts its changes.
    pub sequence: Option<u64>,
    /// What is to be said of each copy.
    pub copies: [String; 2],
    /// No slot below this security version is started.
    #[schemars(with = "Option<u32>")]
    pub floor: Option<SecurityVersion>,
    /// Nor a recovery system below this one.
    #[schemars(with = "Option<u32>")]
    pub recovery_floor: Option<SecurityVersion>,
    /// No slot that was signed under a keyring below this serial is started; 0 for none.
    #[schemars(with = "Option<u32>")]
    pub keyring_floor: Option<KeyringSerial>,
    /// Nor a recovery system below this one.
    #[schemars(with = "Option<u32>")]
    pub recovery_keyring_floor: Option<KeyringSerial>,
    /// What is to be started once.
    #[schemars(with = "Option<String>")]
    pub one_shot: Option<Target>,
    /// What was started last.
    #[schemars(with = "Option<String>")]
    pub last_tried: Option<Target>,
}

/// The floors that a start went by: the higher ones of what the record and firmware said then.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FloorFacts {
    /// Of slots A and B: `security_version`, `keyring_serial`.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub system: Level,
    /// Of recovery.
    #[schemars(with = "BTreeMap<String, u64>")]
    pub recovery: Level,
    /// Whether all of firmware's could be read; null without Secure Boot, or from a loader that did not say.
    pub firmware_known: Option<bool>,
}

/// What ends a hang.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Watchdog {
    /// The driver of the one that the initrd opened.
    pub hardware: Option<String>,
    /// Its seconds.
    pub hardware_seconds: Option<i32>,
    /// Those of the firmware's; 0 if it has none.
    pub firmware_seconds: Option<u64>,
    /// The timer that the loader armed: `driver` and `seconds`.
    #[schemars(with = "Option<BTreeMap<String, Value>>")]
    pub timer: Option<Timer>,
    /// What firmware faulted in when the loader touched a timer, which it leaves alone since.
    pub timer_fault: Option<String>,
    /// What covers which stretch of a start.
    pub stretches: Vec<Stretch>,
}

/// The state filesystem.
#[derive(Debug, Serialize, JsonSchema)]
pub struct State {
    /// What the initrd found: `status`, `problem`, `reason`.
    #[schemars(with = "BTreeMap<String, Option<String>>")]
    pub check: StateReport,
    /// Bytes that are free.
    pub free: Option<u64>,
    /// Bytes altogether.
    pub size: Option<u64>,
    /// Inodes that are free.
    pub free_inodes: Option<u64>,
    /// Inodes altogether.
    #[serde(skip)]
    pub inodes: Option<u64>,
    /// Errors that the kernel has found in it; after the first one nothing is kept any more.
    pub errors: Option<u64>,
}

/// Both EFI system partitions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Esps {
    /// The first.
    #[serde(rename = "esp-a")]
    pub a: EspFacts,
    /// The second.
    #[serde(rename = "esp-b")]
    pub b: EspFacts,
}

/// One of them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EspFacts {
    /// Whether a loader of ours is on it.
    pub ok: bool,
    /// Why not.
    pub why: Option<String>,
    /// SHA-256 of the loader.
    #[schemars(with = "Option<String>")]
    pub loader: Option<Digest>,
    /// Whether this machine was started from it.
    pub booted: bool,
}

/// The boot partitions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Headers {
    /// boot-a.
    pub a: Checked,
    /// boot-b.
    pub b: Checked,
    /// boot-r.
    pub recovery: Checked,
}

impl Esps {
    /// Each with its name.
    pub fn each(&self) -> [(Esp, &EspFacts); 2] {
        [(Esp::A, &self.a), (Esp::B, &self.b)]
    }
}

impl Headers {
    /// Each with its name.
    pub fn each(&self) -> [(Target, &Checked); 3] {
        [
            (Target::A, &self.a),
            (Target::B, &self.b),
            (Target::Recovery, &self.recovery),
        ]
    }
}

/// Whether something is as it should be.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// It is.
    pub ok: bool,
    /// Why not.
    pub why: Option<String>,
}

/// The profile that was applied.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Profile {
    /// Where it lies.
    pub file: PathBuf,
    /// Why it is not the one on `state`.
    pub problem: Option<String>,
    /// What is hardly meant in it, if it is the machine's own: of an image's, whoever built the image was told.
    pub warnings: Vec<Said>,
    /// What of it recovery leaves out, because it does not know it or because it is wrong: in a system slot the whole
    /// of such a profile is refused.
    pub left_out: Vec<Said>,
}

/// Something about a profile.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Said {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is odd, or wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl From<&Diagnostic> for Said {
    fn from(it: &Diagnostic) -> Self {
        Self {
            line: it.line,
            column: it.column,
            message: it.message.clone(),
            help: it.help.clone(),
        }
    }
}

/// The warnings of the profile in force, where somebody at the machine can change it.
fn warnings(paths: &Paths, chosen: Option<&ChosenProfile>) -> Vec<Said> {
    let own = chosen.filter(|it| it.path == paths.state("profile.yaml"));
    let warnings = own.into_iter().flat_map(|it| &it.warnings);
    warnings.map(Said::from).collect()
}

/// Looks at everything.
pub(super) fn gather(machine: &Machine) -> Result<Status> {
    let mut control = boot::view(machine)?;
    let loaded = control.load();
    let quarantined: Vec<_> = control
        .store()
        .quarantined()
        .map(|q| q.into_iter().map(|e| e.digest).collect())
        .unwrap_or_default();
    let record = loaded.record.as_ref();
    let handover = machine.handover.as_ref();
    let image = machine.image.as_ref();
    let paths = machine.paths();
    let slot = |slot: Slot, record: &Record| {
        let entry = record.slot(slot);
        SlotFacts {
            status: entry.status().name(),
            version: (!entry.version.is_empty()).then_some(entry.version),
            manifest: (!entry.digest.is_zero()).then_some(entry.digest),
            security_version: entry.security_version,
            priority: entry.priority,
            tries: entry.tries,
            failure_streak: entry.failure_streak,
            booted: machine.slot() == Some(slot),
            quarantined: quarantined.contains(&entry.digest),
        }
    };
    let room = rustix::fs::statvfs(paths.at("/state")).ok();
    let applied = apply::applied(&paths);
    let chosen = choose::in_force(&paths).ok();
    let started_from = efi::started_from(machine).ok();
    let report = Report::read(&paths.run("serve.json"), &boot_id());
    let mut status = Status {
        version: 1,
        booted: Booted {
            slot: machine.booted,
            why: handover.map(|h| h.why),
            product: image.map(|i| i.product.clone()),
            version: image.map(|i| i.version.clone()),
            manifest: machine.boot.manifest_digest,
            good: machine
                .slot()
                .zip(record)
                .is_some_and(|(slot, record)| record.slot(slot).is_good()),
            recorded: handover.map(|h| h.recorded),
            nonce: handover.map(|h| h.nonce),
            loader: handover.map(|h| h.loader.clone()),
            secure_boot: handover.map(|h| h.secure_boot),
            rejected: handover.map(|h| h.rejected.clone()),
            root_device: machine.boot.root_device.clone(),
            disk: machine.boot.disk.clone(),
            first_boot: machine.boot.first_boot,
        },
        next: record.and_then(|record| Some(Selector::new(record).next()?.target)),
        slots: record.map(|record| Slots {
            a: slot(Slot::A, record),
            b: slot(Slot::B, record),
        }),
        record: RecordFacts {
            sequence: record.map(|r| r.sequence),
            copies: loaded.copies.each_ref().map(ToString::to_string),
            floor: record.map(|r| r.floors.system.security_version),
            recovery_floor: record.map(|r| r.floors.recovery.security_version),
            keyring_floor: record.map(|r| r.floors.system.keyring_serial),
            recovery_keyring_floor: record.map(|r| r.floors.recovery.keyring_serial),
            one_shot: record.and_then(|r| r.one_shot),
            last_tried: record.and_then(|r| r.last_tried),
        },
        floors: handover.and_then(|h| {
            let floors = h.floors?;
            Some(FloorFacts {
                system: floors.system,
                recovery: floors.recovery,
                firmware_known: h.firmware_floors,
            })
        }),
        unwell: report.as_ref().and_then(Report::unwell),
        health: report,
        watchdog: Watchdog {
            hardware: machine.boot.watchdog.clone(),
            hardware_seconds: machine.boot.watchdog_seconds,
            firmware_seconds: handover.map(|h| h.watchdog_seconds),
            timer: handover.and_then(|h| h.timer.clone()),
            timer_fault: Variables::of(machine).timer_fault(),
            stretches: watchdog::stretches(machine),
        },
        state: State {
            check: machine.boot.state.clone(),
            free: room.as_ref().map(|s| s.f_bavail * s.f_frsize),
            size: room.as_ref().map(|s| s.f_blocks * s.f_frsize),
            free_inodes: room.as_ref().map(|s| s.f_favail),
            inodes: room.as_ref().map(|s| s.f_files),
            errors: room.as_ref().map(|_| errors_of_state(machine)),
        },
        disk: DiskFacts::of(machine),
        esps: Esps {
            a: esp(machine, Esp::A, started_from),
            b: esp(machine, Esp::B, started_from),
        },
        loader_update: Update::read(&under_way::path(machine)).ok().flatten(),
        headers: Headers {
            a: header(machine, Target::A),
            b: header(machine, Target::B),
            recovery: header(machine, Target::Recovery),
        },
        profile: applied.as_ref().map(|it| Profile {
            file: it.profile.clone(),
            problem: it.problem.clone(),
            warnings: warnings(&paths, chosen.as_ref()),
            left_out: chosen
                .iter()
                .flat_map(|it| &it.left_out)
                .map(Said::from)
                .collect(),
        }),
        clock: applied.and_then(|it| it.clock),
        timeline: machine.boot.timeline.clone(),
        problems: vec![],
    };
    status.problems = problems::find(machine, &loaded, &status, chosen.as_ref());
    Ok(status)
}

fn header(machine: &Machine, target: Target) -> Checked {
    let found = machine
        .open(target.label_boot(), Access::Read)
        .map_err(|e| e.what)
        .and_then(|mut d| read_header(&mut d).map_err(|e| e.to_string()));
    Checked {
        ok: found.is_ok(),
        why: found.err(),
    }
}

/// The loader on an ESP, by its digest: a flipped bit in one of the two is seen before it is needed.
fn esp(machine: &Machine, esp: Esp, started_from: Option<Esp>) -> EspFacts {
    let look = || {
        let architecture = slot_check::trust(machine).map_err(|e| e.what)?.architecture;
        let mut device = machine
            .open(esp.label(), Access::Read)
            .map_err(|e| e.what)?;
        let program =
            boot_core::esp::read_loader(&mut device, architecture).map_err(|e| e.to_string())?;
        Trust::from_intact_program(&program).map_err(|e| e.to_string())?;
        Ok::<_, String>(Digest::of(&program))
    };
    let (loader, why) = match look() {
        Ok(loader) => (Some(loader), None),
        Err(why) => (None, Some(why)),
    };
    EspFacts {
        ok: loader.is_some(),
        why,
        loader,
        booted: started_from == Some(esp),
    }
}
