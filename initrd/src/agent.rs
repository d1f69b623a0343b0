//! The steps of a start, in order.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use boot_core::boot_report::{BootReport, StateReport, StateStatus, TableEntry};
use boot_core::event::EventKind;

use crate::block::partition_name;
use crate::boot_disk::{self, Candidate};
use crate::boot_report;
use crate::cmdline::Root;
use crate::drivers::{Always, Drivers};
use crate::failure::{Context, Failure};
use crate::modules::Index;
use crate::new_root::{self, NEW_ROOT};
use crate::prepare_etc_and_var::prepare;
use crate::start::{Start, identify, read_hand_over};
use crate::state;
use crate::timeline::Timeline;
use crate::{abort, console, grow_table, open_root};

/// The system's own PID 1.
const INIT: &str = "/sbin/init";
/// Not needed before the root and `state` are mounted.
const OVERLAY: &str = "overlay";

/// Runs the start up to the system's own PID 1, which replaces this program.
pub fn run() -> Result<Infallible, Failure> {
    let mut timeline = Timeline::start();
    new_root::mount_first()?;
    console::unlimit();
    console::announce(format_args!("initrd agent {}", env!("CARGO_PKG_VERSION")));
    timeline.mark("mounts_us");

    let text = fs::read_to_string("/sternpost/modules.json")
        .context("reading", "/sternpost/modules.json")?;
    let index = Index::parse(&text)?;
    // The hand-over is firmware's to give, which may hang: before the watchdog it is only asked for where it has to say
    // which of several watchdogs runs already.
    let handed_over = OnceCell::new();
    let mut drivers = Drivers::start(index, || {
        let (hand_over, _) = handed_over.get_or_init(read_hand_over).as_ref().ok()?;
        Some(hand_over.timer.as_ref()?.driver.clone())
    })?;
    timeline.mark("watchdog_us");
    let handed_over = handed_over.into_inner().unwrap_or_else(read_hand_over);
    timeline.mark("handover_us");
    // Not before the watchdog counts: the kernel loads modules largely one after the other, so these would delay it.
    let mut always = Always::load(&drivers.index)?;
    let start = identify(handed_over?)?;
    let found = boot_disk::wait_for(&mut drivers, &start)?;
    timeline.mark("disk_us");
    always.wait_for_all_but(OVERLAY);
    timeline.mark("modules_us");
    bring_up(&start, found, &drivers, always, &mut timeline)
}

/// From the disk to the system's own PID 1.
fn bring_up(
    start: &Start,
    found: Option<Candidate>,
    drivers: &Drivers,
    always: Always,
    timeline: &mut Timeline,
) -> Result<Infallible, Failure> {
    let mut report = BootReport::new(start.hand_over.slot, start.hand_over.manifest);
    if let Some(wrong) = drivers.not_taken_over(start.hand_over.timer.as_ref()) {
        console::announce(&wrong);
        report.notes.push(wrong);
    }
    if let Some(candidate) = &found {
        console::log(format_args!(
            "{} on /dev/{}",
            start.hand_over.slot, candidate.name
        ));
        abort::remember(|facts| {
            facts.disk = Some((candidate.name.clone(), candidate.table.clone()))
        });
        report.disk = Some(format!("/dev/{}", candidate.name));
    }
    // Before recovery as well: without a whole table the kernel has no partitions to install into.
    let table = found.as_ref().map(|candidate| {
        grow_table::grow(candidate, &mut report);
        grow_table::reread(candidate)
    });
    timeline.mark("table_us");
    match (&start.root, &found) {
        (Root::Verity(hash), Some(candidate)) => {
            report.root_device = open_root::verified(start, candidate, hash)?;
        }
        (Root::Recovery, _) => report.root_device = open_root::of_recovery()?,
        (Root::Verity(_), None) => {
            return Err(Failure::new("looking for", "the disk", "not there"));
        }
    }
    new_root::mount_root(&report.root_device)?;
    timeline.mark("root_us");

    for part in table.iter().flat_map(|table| &table.partitions) {
        let entry = TableEntry {
            number: part.number,
            guid: part.guid.to_string(),
            start: part.start,
            size: part.size,
        };
        report.table.insert(part.label.clone(), entry);
        let disk = found.as_ref().map(|candidate| candidate.name.as_str());
        if let Some((name, _)) = disk.and_then(|disk| partition_name(disk, part.number)) {
            let device = format!("/dev/{name}");
            report.partitions.insert(part.label.clone(), device);
        }
    }
    let name = report
        .partitions
        .get("state")
        .map(|path| path.trim_start_matches("/dev/").to_owned());
    let state = state::mount_state(
        name.as_deref(),
        &Path::new(NEW_ROOT).join("state"),
        Path::new(NEW_ROOT),
        drivers.watchdog.as_ref(),
    )?;
    note_state(&state.report);
    report.grown.state = state.grown;
    report.state = state.report;
    timeline.mark("state_us");

    always.wait();
    // An id that is new because `state` is out of reach says nothing about the machine.
    report.first_boot = prepare(start, &mut report)? && report.state.problem.is_none();
    if !new_root::has_program(INIT) {
        return Err(Failure::new(
            "looking for",
            INIT,
            "the root filesystem has none",
        ));
    }
    timeline.mark("tree_us");
    new_root::free_initramfs();
    timeline.mark("free_us");
    if let Some(watchdog) = &drivers.watchdog {
        report.watchdog = Some(watchdog.name.clone());
        report.watchdog_seconds = Some(watchdog.seconds);
    }
    report.timeline = timeline.to_map();
    boot_report::write(&start.raw, &report)?;
    console::announce(timeline.summary());
    // systemd has the whole of its time until it takes over.
    drivers.ping();
    new_root::switch()?;
    Err(Failure::new("starting", INIT, Command::new(INIT).exec()))
}

fn note_state(state: &StateReport) {
    let Some(reason) = &state.reason else { return };
    let kind = match state.status {
        StateStatus::Repaired => EventKind::STATE_REPAIRED,
        StateStatus::Ok | StateStatus::Degraded => EventKind::STATE_PROBLEM,
    };
    abort::record(kind, reason);
}
