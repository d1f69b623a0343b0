//! `status`: what runs and why, what the slots hold, what is wrong and what to do about it.

use std::fmt::Write as _;
use std::path::Path;

use boot_core::boot_report::StateProblem;
use boot_core::record::{Record, SlotStatus};
use boot_core::select::{Selector, Why};
use boot_core::slot_header::read_header;
use boot_core::store::CopyHealth;
use boot_core::transition::{self, LONG_STREAK};
use boot_core::trust::Trust;
use boot_core::{Digest, Slot, Target};
use serde_json::{Value, json};

use super::health::now_and_then;
use super::{control, history::short, update_loader};
use crate::boot::slot_check;
use crate::bring_up::lanes::{LaneState, Standing, now_ms};
use crate::failure::Result;
use crate::health::report::{Phase, Report};
use crate::loader::{Esp, Update, efi};
use crate::machine::Machine;
use crate::machine::facts;
use crate::machine::facts::target_name;
use crate::output::Outcome;
use crate::profile::apply;
use crate::watchdog;

/// `bootctl status`.
pub fn status(machine: &Machine) -> Result<Outcome> {
    let facts = Facts::gather(machine)?;
    Ok(Outcome::new(facts.text(), facts.json()))
}

/// Something that is wrong, and what to do about it.
struct Wrong {
    what: String,
    next: String,
}

struct Facts<'m> {
    machine: &'m Machine,
    record: Option<Record>,
    copies: [CopyHealth; 2],
    quarantined: Vec<Digest>,
    report: Option<Report>,
    applied: Option<apply::Applied>,
    esps: Vec<(Esp, std::result::Result<Digest, String>)>,
    started_from: Option<Esp>,
    update: Option<Update>,
    headers: Vec<(Target, std::result::Result<(), String>)>,
    state: Option<Room>,
    disk: Option<DiskFacts>,
    wrong: Vec<Wrong>,
}

/// What there is on `state`.
struct Room {
    free: u64,
    size: u64,
    free_inodes: u64,
    inodes: u64,
    /// Errors that the kernel has found in it; after the first one nothing is kept any more.
    errors: u64,
}

/// What the kernel says of the disk.
#[derive(serde::Serialize)]
struct DiskFacts {
    /// `write back`: it has a cache, which is flushed; `write through`: it says that it has none.
    write_cache: Option<String>,
    read_only: bool,
}

impl DiskFacts {
    fn of(machine: &Machine) -> Option<Self> {
        let disk = machine.boot.disk.as_deref()?;
        let sysfs = machine.paths().at("/sys");
        Some(Self::read(&sysfs, disk.trim_start_matches("/dev/")))
    }

    fn read(sysfs: &Path, disk: &str) -> Self {
        let text = |name: &str| {
            let path = sysfs.join("class/block").join(disk).join(name);
            std::fs::read_to_string(path).map(|text| text.trim().to_owned())
        };
        Self {
            write_cache: text("queue/write_cache").ok(),
            read_only: text("ro").is_ok_and(|text| text == "1"),
        }
    }
}

/// How many errors the kernel has counted in `state`, which it does in the superblock; 0 if it is not mounted.
///
/// After an error the kernel lets nothing be written (`errors=remount-ro`). From Linux 6.12 on, mount flags do not show
/// that.
pub(crate) fn errors_of_state(machine: &Machine) -> u64 {
    let count = machine.partition("state").ok().and_then(|path| {
        let ext4 = machine.paths().at("/sys/fs/ext4").join(path.file_name()?);
        std::fs::read_to_string(ext4.join("errors_count")).ok()
    });
    count.map_or(0, |count| count.trim().parse().unwrap_or(0))
}

/// Whether the disk lets nothing be written.
pub(crate) fn disk_is_read_only(machine: &Machine) -> bool {
    DiskFacts::of(machine).is_some_and(|disk| disk.read_only)
}

impl<'m> Facts<'m> {
    fn gather(machine: &'m Machine) -> Result<Self> {
        let mut control = control(machine, false)?;
        let loaded = control.load();
        let quarantined = control
            .store()
            .quarantined()
            .map(|q| q.into_iter().map(|e| e.digest).collect())
            .unwrap_or_default();
        let paths = machine.paths();
        let esps = Esp::BOTH.map(|esp| (esp, look_at_esp(machine, esp))).into();
        let headers = Target::ALL
            .map(|target| {
                let found = machine
                    .open(target.label_boot(), false)
                    .map_err(|e| e.what)
                    .and_then(|mut d| read_header(&mut d).map(|_| ()).map_err(|e| e.to_string()));
                (target, found)
            })
            .into();
        let state = rustix::fs::statvfs(paths.at("/state")).ok().map(|s| Room {
            free: s.f_bavail * s.f_frsize,
            size: s.f_blocks * s.f_frsize,
            free_inodes: s.f_favail,
            inodes: s.f_files,
            errors: errors_of_state(machine),
        });
        let mut facts = Self {
            machine,
            record: loaded.record,
            copies: loaded.copies,
            quarantined,
            report: Report::read(&paths.run("serve.json"), &facts::boot_id()),
            applied: apply::applied(&paths),
            esps,
            started_from: efi::started_from(machine).ok(),
            update: Update::read(&update_loader::path(machine)).ok().flatten(),
            headers,
            state,
            disk: DiskFacts::of(machine),
            wrong: Vec::new(),
        };
        facts.wrong = facts.find_wrong();
        Ok(facts)
    }

    fn booted_entry_is_good(&self) -> bool {
        match (self.machine.slot(), &self.record) {
            (Some(slot), Some(record)) => record.slot(slot).is_good(),
            _ => false,
        }
    }

    /// What the loader starts next.
    fn next(&self) -> Option<Target> {
        Selector::new(self.record.as_ref()?)
            .next()
            .map(|c| c.target)
    }

    fn find_wrong(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut add = |what: String, next: &str| {
            wrong.push(Wrong {
                what,
                next: next.into(),
            })
        };
        if let Some(what) = self.machine.contradiction() {
            add(
                format!("facts contradict each other: {what}"),
                "restart the machine; nothing is written until then",
            );
        }
        for (copy, health) in self.copies.iter().enumerate() {
            if !matches!(health, CopyHealth::Valid { .. }) {
                add(
                    format!("copy {copy} of the boot-state record: {health}"),
                    "it is written again at the next change; if it comes back, the disk is failing",
                );
            }
        }
        if let Some(handover) = &self.machine.handover {
            for rejected in &handover.rejected {
                add(
                    format!(
                        "the loader did not start {}: {}",
                        rejected.slot, rejected.reason
                    ),
                    "install an image into that slot: `bootctl install SOURCE`",
                );
            }
            if !handover.recorded {
                add(
                    "the loader could not record this start".into(),
                    "look at the disk: journalctl -k, smartctl",
                );
            }
        }
        if let Some(record) = &self.record {
            for slot in Slot::BOTH {
                let entry = record.slot(slot);
                if entry.is_good() && entry.failure_streak >= LONG_STREAK {
                    add(
                        format!(
                            "slot {slot} ended {} times before its userland was up",
                            entry.failure_streak
                        ),
                        "`bootctl history` and the console log of those starts; check the power supply",
                    );
                }
                if Target::from(slot) != self.machine.booted
                    && entry.status() == SlotStatus::GivenUp
                {
                    add(
                        format!("slot {slot} (version {}) was given up", entry.version),
                        "`bootctl history` says why; install another version",
                    );
                }
                if Target::from(slot) != self.machine.booted
                    && entry.status() == SlotStatus::Unproven
                {
                    add(
                        format!(
                            "slot {slot} (version {}) is unproven: no start ended in a verdict",
                            entry.version
                        ),
                        "`bootctl activate --now` tries it again; or install another version",
                    );
                }
            }
        }
        if self.machine.booted == Target::Recovery {
            let why = if self.machine.was_asked_for() {
                "it was asked for; `bootctl reboot` ends it"
            } else {
                "no slot came up"
            };
            // The slot that may be written: one that could still start is not, while nothing else does.
            let free = |slot: &Slot| {
                let record = self.record.as_ref();
                record.is_some_and(|it| transition::clear(it, *slot, Target::Recovery).is_ok())
            };
            let slot = Slot::BOTH.into_iter().find(free).unwrap_or(Slot::A);
            add(
                format!("the recovery system is running: {why}"),
                &format!(
                    "bootctl install --slot {} --now SOURCE",
                    target_name(slot.into())
                ),
            );
        }
        for (esp, found) in &self.esps {
            if let Err(why) = found {
                add(
                    format!("{esp}: {why}"),
                    "the machine still starts from the other ESP: `bootctl update-loader --copy` writes this one from it",
                );
            }
        }
        match (&self.esps[..], &self.update) {
            (_, Some(update)) => add(
                format!(
                    "an update of the loader to version {} is not over: {} is tried at the next start",
                    update.version, update.esp
                ),
                "`bootctl reboot`; once a good slot runs from it, the other ESP gets it too",
            ),
            ([(_, Ok(a)), (_, Ok(b))], None) if a != b => add(
                "esp-a and esp-b hold different loaders".into(),
                "`bootctl update-loader --copy` gives both the one that this machine was started from",
            ),
            _ => {}
        }
        for (target, found) in &self.headers {
            let expected = match (target.slot(), &self.record) {
                (Some(slot), Some(record)) => record.slot(slot).contents().is_some(),
                (None, _) => true,
                _ => false,
            };
            if let (true, Err(why)) = (expected, found) {
                add(
                    format!("{target}: {why}"),
                    match target {
                        Target::Recovery => {
                            "there is no recovery system to fall back on; write the disk image anew when it is convenient"
                        }
                        _ => "install an image into that slot: `bootctl install SOURCE`",
                    },
                );
            }
        }
        if let Some(applied) = &self.applied {
            if let Some(problem) = &applied.problem {
                add(
                    problem.clone(),
                    "`bootctl profile check` says everything that is wrong with it",
                );
            }
            if let Some(why) = applied.clock.as_ref().and_then(|c| c.implausible.as_ref()) {
                add(
                    why.clone(),
                    "set the clock, or give the machine a time server in its profile",
                );
            }
        }
        if let Some(room) = &self.state {
            let (free, size) = (room.free, room.size);
            if size > 0 && free < size / 20 {
                add(
                    format!("the state filesystem is nearly full: {free} of {size} bytes are free"),
                    "remove what is not needed below /var",
                );
            }
            let (free, all) = (room.free_inodes, room.inodes);
            if all > 0 && free < all / 20 {
                add(
                    format!("the state filesystem is nearly full: {free} of {all} inodes are free"),
                    "remove what is not needed below /var: many small files",
                );
            }
        }
        let unfit = self.machine.state_unfit();
        if let Some(why) = &unfit {
            add(why.clone(), self.next_for_state());
        }
        let disk_is_read_only = self.disk.as_ref().is_some_and(|disk| disk.read_only);
        let errors = self.state.as_ref().map_or(0, |room| room.errors);
        if !disk_is_read_only && errors > 0 {
            add(
                format!(
                    "the kernel found an error in the state filesystem, {errors} in all: nothing is kept any more"
                ),
                "journalctl -k says what it was; `bootctl reboot`: the next start checks the filesystem and repairs it. Once it has been up for six hours, the machine restarts by itself",
            );
        }
        if disk_is_read_only {
            add(
                "the disk is read-only: nothing that happens is recorded, and nothing can be installed".into(),
                "look at the disk: journalctl -k, smartctl; a flash disk at its end often does this",
            );
        }
        match &self.report {
            None => add(
                "the service has not said anything in this boot".into(),
                "systemctl status sternpost.service",
            ),
            Some(report) => {
                if report.phase == Phase::Healthy
                    && let Some(why) = report.unwell()
                {
                    add(
                        format!("not well now: {why}"),
                        "`bootctl health` shows what does not hold; the verdict on this version stands",
                    );
                }
                for why in report
                    .degraded
                    .iter()
                    .filter(|why| Some(*why) != unfit.as_ref())
                {
                    add(
                        format!("degraded: {why}"),
                        "`bootctl health` shows what does not hold",
                    );
                }
            }
        }
        wrong
    }

    /// What to do about a `state` that nothing is brought up on.
    fn next_for_state(&self) -> &'static str {
        let boot = &self.machine.boot;
        match boot.state.problem {
            Some(StateProblem::Missing) => {
                "save what is on the disk and write the disk image anew: no partition can be added"
            }
            Some(StateProblem::Damaged) => {
                "e2fsck -f on the partition repairs what it can, asking; then `bootctl reboot`. To give up what is on it: `bootctl erase-state`"
            }
            Some(StateProblem::Unusable) => {
                "look at the disk (journalctl -k) and restart; what is on it may be whole"
            }
            None if boot.state_missing().is_some() => {
                "`bootctl reboot`; if it stays so, look at /state"
            }
            None => {
                "install that version or a later one. To let this one use what is there, at your own risk, remove /state/sternpost/owner.json and reboot"
            }
        }
    }

    fn slot_json(&self, slot: Slot, record: &Record) -> Value {
        let entry = record.slot(slot);
        json!({
            "status": entry.status().name(),
            "version": (!entry.version.is_empty()).then_some(entry.version),
            "manifest": (!entry.digest.is_zero()).then_some(entry.digest),
            "security_version": entry.security_version,
            "priority": entry.priority,
            "tries": entry.tries,
            "failure_streak": entry.failure_streak,
            "booted": self.machine.slot() == Some(slot),
            "quarantined": self.quarantined.contains(&entry.digest),
        })
    }

    fn json(&self) -> Value {
        let machine = self.machine;
        let handover = machine.handover.as_ref();
        let record = self.record.as_ref();
        json!({
            "version": 1,
            "booted": {
                "slot": target_name(machine.booted),
                "why": handover.map(|h| h.why),
                "version": machine.image.as_ref().map(|i| &i.version),
                "manifest": machine.boot.manifest_digest,
                "good": self.booted_entry_is_good(),
                "recorded": handover.map(|h| h.recorded),
                "nonce": handover.map(|h| h.nonce),
                "loader": handover.map(|h| &h.loader),
                "secure_boot": handover.map(|h| h.secure_boot),
                "rejected": handover.map(|h| &h.rejected),
                "root_device": machine.boot.root_device,
                "disk": machine.boot.disk,
                "first_boot": machine.boot.first_boot,
            },
            "next": self.next().map(target_name),
            "slots": record.map(|r| json!({
                "a": self.slot_json(Slot::A, r),
                "b": self.slot_json(Slot::B, r),
            })),
            "record": {
                "sequence": record.map(|r| r.sequence),
                "copies": self.copies.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "floor": record.map(|r| r.floor),
                "recovery_floor": record.map(|r| r.recovery_floor),
                "one_shot": record.and_then(|r| r.one_shot).map(target_name),
                "last_tried": record.and_then(|r| r.last_tried).map(target_name),
            },
            "health": self.report,
            "unwell": self.report.as_ref().and_then(Report::unwell),
            "watchdog": {
                "hardware": machine.boot.watchdog,
                "hardware_seconds": machine.boot.watchdog_seconds,
                "firmware_seconds": handover.map(|h| h.watchdog_seconds),
                "timer": handover.and_then(|h| h.timer.as_ref()),
                "stretches": watchdog::stretches(machine),
            },
            "state": {
                "check": machine.boot.state,
                "free": self.state.as_ref().map(|room| room.free),
                "size": self.state.as_ref().map(|room| room.size),
                "free_inodes": self.state.as_ref().map(|room| room.free_inodes),
                "errors": self.state.as_ref().map(|room| room.errors),
            },
            "disk": self.disk,
            "esps": self.esps.iter().map(|(esp, found)| {
                (esp.label().to_owned(), json!({
                    "ok": found.is_ok(), "why": found.as_ref().err(), "loader": found.as_ref().ok(),
                    "booted": self.started_from == Some(*esp),
                }))
            }).collect::<serde_json::Map<_, _>>(),
            "loader_update": self.update,
            "headers": self.headers.iter().map(|(target, found)| {
                (target_name(*target).to_owned(), json!({"ok": found.is_ok(), "why": found.as_ref().err()}))
            }).collect::<serde_json::Map<_, _>>(),
            "profile": self.applied.as_ref().map(|a| json!({"file": a.profile, "problem": a.problem})),
            "clock": self.applied.as_ref().and_then(|a| a.clock.as_ref()),
            "timeline": machine.boot.timeline,
            "problems": self.wrong.iter().map(|w| json!({"what": w.what, "next": w.next})).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let machine = self.machine;
        let version = machine
            .image
            .as_ref()
            .map_or("of unknown version", |i| &i.version);
        let product = machine.image.as_ref().map_or("", |i| &i.product);
        let _ = write!(out, "{product} {version} runs from {}", machine.booted);
        if let Some(handover) = &machine.handover {
            let why = match handover.why {
                Why::Priority => "it comes first",
                Why::OneShot => "it was asked for once",
                Why::LastResort => "nothing else could be started: last resort",
                Why::Rebuilt => "the boot-state record was lost and made anew",
                Why::Unrecorded => "the start could not be recorded",
            };
            let _ = write!(out, " ({why})");
        }
        out.push('\n');
        if let Some(record) = &self.record {
            out.push_str(
                "\n        status     version           tries  streak  security  manifest\n",
            );
            for slot in Slot::BOTH {
                let entry = record.slot(slot);
                let mut notes = Vec::new();
                if machine.slot() == Some(slot) {
                    notes.push("booted");
                }
                if self.next() == Some(slot.into()) {
                    notes.push("next");
                }
                if self.quarantined.contains(&entry.digest) {
                    notes.push("quarantined");
                }
                let manifest = if entry.digest.is_zero() {
                    "-".into()
                } else {
                    short(&entry.digest)
                };
                let version = if entry.version.is_empty() {
                    "-"
                } else {
                    entry.version.as_str()
                };
                let _ = writeln!(
                    out,
                    "slot {slot}  {:10} {version:17} {:5}  {:6}  {:8}  {manifest:12}  {}",
                    entry.status(),
                    entry.tries,
                    entry.failure_streak,
                    entry.security_version,
                    notes.join(", ")
                );
            }
            let _ = writeln!(
                out,
                "security floor {}, recovery's {}",
                record.floor, record.recovery_floor
            );
        } else {
            out.push_str("the boot-state record cannot be read\n");
        }
        if let Some(report) = &self.report {
            let _ = writeln!(out, "health: {}", now_and_then(report));
            lanes_text(&mut out, &report.lanes, now_ms());
        }
        out.push_str("a hang is ended by\n");
        for stretch in watchdog::stretches(machine) {
            let by = match (&stretch.by, &stretch.why) {
                (Some(by), _) => by.clone(),
                (None, Some(why)) => format!("nothing: {why}"),
                (None, None) => "nothing".into(),
            };
            let _ = writeln!(out, "  {:48} {by}", stretch.what);
        }
        if self.wrong.is_empty() {
            out.push_str("nothing is wrong");
        }
        for wrong in &self.wrong {
            let _ = write!(out, "\n! {}\n  next: {}", wrong.what, wrong.next);
        }
        out
    }
}

/// Where the bring-up stands: one line for all that is through, one for each lane that is not.
fn lanes_text(out: &mut String, lanes: &[LaneState], now_ms: u64) {
    let through: Vec<&str> = lanes
        .iter()
        .filter(|lane| lane.standing == Standing::Through)
        .map(|lane| lane.lane.as_str())
        .collect();
    if !through.is_empty() {
        let _ = writeln!(out, "brought up: {}", through.join(", "));
    }
    for lane in lanes {
        let Some(doing) = lane.doing() else { continue };
        let since = now_ms.saturating_sub(lane.since_ms) / 1000;
        let _ = write!(out, "bringing up {}, for {since} s: {doing}", lane.lane);
        if let Some(again) = lane.again_ms {
            let _ = write!(out, "; again in {} s", again.saturating_sub(now_ms) / 1000);
        }
        out.push('\n');
    }
}

/// The loader on an ESP, by its digest: a flipped bit in one of the two is seen before it is needed.
fn look_at_esp(machine: &Machine, esp: Esp) -> std::result::Result<Digest, String> {
    let architecture = slot_check::trust(machine).map_err(|e| e.what)?.architecture;
    let mut device = machine.open(esp.label(), false).map_err(|e| e.what)?;
    let program =
        boot_core::esp::read_loader(&mut device, architecture).map_err(|e| e.to_string())?;
    Trust::from_program(&program).map_err(|e| e.to_string())?;
    Ok(Digest::of(&program))
}
