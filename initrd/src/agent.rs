//! The steps of a start, in order.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use boot_core::Target;
use boot_core::event::EventKind;
use boot_core::handover::{HandOver, Timer};

use crate::block::{BlockDevice, Part, partition_name};
use crate::cmdline::{self, Root};
use crate::disk::{self, Candidate, Wanted};
use crate::dm::{self, Verity};
use crate::failure::{Context, Failure};
use crate::hardware::{self, Uevents};
use crate::modules::{self, Index, Queue};
use crate::root::{self, NEW_ROOT, RUN};
use crate::state::{self, State};
use crate::timeline::Timeline;
use crate::watchdog::Watchdog;
use crate::{console, fail, gpt, handover, slot, sys};

/// Longest time to wait for the disk: slow controllers and USB need seconds to spin up.
const DISK_LIMIT: Duration = Duration::from_secs(30);
/// The same for recovery, which can do without.
const DISK_LIMIT_RECOVERY: Duration = Duration::from_secs(10);
/// Longest wait between two looks, should an announcement be lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The system's own PID 1.
const INIT: &str = "/sbin/init";
/// Loaded before the others, to read the hand-over.
const EFIVARFS: &str = "efivarfs";
/// The kernel's own watchdog.
const SOFTDOG: &str = "softdog";
/// Not needed before the root and `state` are mounted.
const OVERLAY: &str = "overlay";

/// Modules, watched hardware, and what has been loaded for it.
struct Hardware {
    index: Index,
    uevents: Uevents,
    queue: Queue,
    watchdog: Option<Watchdog>,
}

/// What the running system is told; see docs/formats.
#[derive(Default)]
struct Report {
    disk: Option<String>,
    partitions: BTreeMap<String, String>,
    /// What the table says of each, for bootctl, which tells firmware where an ESP is.
    table: BTreeMap<String, serde_json::Value>,
    root_device: String,
    grown_gpt: bool,
    notes: Vec<String>,
}

/// Runs the start up to the system's own PID 1, which replaces this program.
///
/// # Errors
/// Whatever ends this start.
pub fn run() -> Result<Infallible, Failure> {
    let mut timeline = Timeline::start();
    root::mount_first()?;
    console::unlimit();
    console::announce(format_args!("initrd agent {}", env!("CARGO_PKG_VERSION")));
    timeline.mark("mounts_us");

    let text = fs::read_to_string("/sternpost/modules.json")
        .context("reading", "/sternpost/modules.json")?;
    let index = Index::parse(&text)?;
    // The hand-over is firmware's to give, which may hang: before the watchdog it is only asked for where it has to say
    // which of several watchdogs runs already.
    let handed_over = OnceCell::new();
    let mut hardware = Hardware::start(index, || {
        let (handover, _) = handed_over.get_or_init(read_hand_over).as_ref().ok()?;
        Some(handover.timer.as_ref()?.driver.clone())
    })?;
    timeline.mark("watchdog_us");
    let handed_over = handed_over.into_inner().unwrap_or_else(read_hand_over);
    timeline.mark("handover_us");
    // Not before the watchdog counts: the kernel loads modules largely one after the other, so these would delay it.
    let mut always = Always::load(&hardware.index)?;
    let start = identify(handed_over?)?;
    let found = hardware.find_disk(&start)?;
    timeline.mark("disk_us");
    always.wait_for_all_but(OVERLAY);
    timeline.mark("modules_us");
    bring_up(&start, found, &hardware, always, &mut timeline)
}

/// The modules that every start needs, on their way: loaded one after the other beside the hand-over and the disk's
/// drivers. The last of them are waited for only where they are needed.
struct Always {
    loaded: Receiver<String>,
    missing: BTreeSet<String>,
}

impl Always {
    fn load(index: &Index) -> Result<Self, Failure> {
        let names: Vec<String> = index
            .always
            .iter()
            .filter(|name| *name != EFIVARFS)
            .cloned()
            .collect();
        let orders: Vec<(String, Vec<String>)> = names
            .iter()
            .map(|name| (name.clone(), index.with_dependencies(name)))
            .collect();
        let (done, loaded) = mpsc::channel();
        let work = move || {
            for (name, order) in orders {
                load_all(order.iter());
                // Nobody waits any more once the start has failed.
                let _ = done.send(name);
            }
        };
        thread::Builder::new().spawn(work).context(
            "starting a thread for",
            "the kernel modules that every start needs",
        )?;
        Ok(Self {
            loaded,
            missing: names.into_iter().collect(),
        })
    }

    /// Waits until all are loaded but `later`. One that could not be loaded has been said, and shows when it is needed.
    fn wait_for_all_but(&mut self, later: &str) {
        while self.missing.iter().any(|name| name != later) {
            match self.loaded.recv() {
                Ok(name) => self.missing.remove(&name),
                Err(_) => return,
            };
        }
    }

    /// Waits until all are loaded.
    fn wait(mut self) {
        self.wait_for_all_but("");
    }
}

/// What this start is.
struct Start {
    handover: HandOver,
    raw: Vec<u8>,
    root: Root,
}

impl Start {
    fn is_recovery(&self) -> bool {
        self.root == Root::Recovery
    }
}

/// The loader's hand-over, and its bytes.
fn read_hand_over() -> Result<(HandOver, Vec<u8>), Failure> {
    // Built in, or a failure that the mount will show.
    let _ = modules::load(EFIVARFS);
    let raw = handover::read()?;
    let handover = HandOver::from_json(&raw).context("reading", "the loader's hand-over")?;
    Ok((handover, raw))
}

/// Reads the command line and sees that it and the hand-over fit.
fn identify((handover, raw): (HandOver, Vec<u8>)) -> Result<Start, Failure> {
    fail::remember(|facts| {
        facts.target = Some(handover.slot);
        facts.nonce = Some(handover.nonce);
        facts.digest = Some(handover.manifest);
    });
    let kernel = fs::read_to_string("/proc/cmdline").context("reading", "/proc/cmdline")?;
    let image =
        fs::read_to_string("/sternpost/cmdline").context("reading", "/sternpost/cmdline")?;
    let root = cmdline::check(&kernel, &image).context("checking", "the kernel's command line")?;
    if (root == Root::Recovery) != (handover.slot == Target::Recovery) {
        return Err(Failure::new(
            "checking",
            "the kernel's command line",
            format_args!(
                "the loader started {}, but this kernel is built for something else",
                handover.slot
            ),
        ));
    }
    Ok(Start {
        handover,
        raw,
        root,
    })
}

/// Loads modules; one that fails is noted, and missed later by what needs it.
fn load_all<'a>(names: impl Iterator<Item = &'a String>) {
    let mut done = BTreeSet::new();
    for name in names {
        if done.insert(name)
            && let Err(failure) = modules::load(name)
        {
            console::log(failure.reason());
        }
    }
}

impl Hardware {
    /// Opens the watchdog, which arms it: the one that the loader armed (whose driver `armed` gives), or else the first
    /// there is.
    fn start(index: Index, armed: impl Fn() -> Option<String>) -> Result<Self, Failure> {
        let mut hardware = Self {
            index,
            uevents: Uevents::listen()?,
            queue: Queue::default(),
            watchdog: None,
        };
        // Twice, because a bridge's driver may be what makes the watchdog's device appear.
        for _ in 0..2 {
            let modaliases = hardware::modaliases();
            let mut wanted = hardware
                .index
                .wanted_by(modaliases.iter().map(String::as_str));
            wanted.retain(|name| hardware.index.is_watchdog(name));
            if wanted.len() > 1
                && let Some(armed) = armed()
            {
                // Stable, so that the others stay in their order.
                wanted.sort_by_key(|name| armed != *name);
            }
            for name in &wanted {
                hardware.load(name);
                hardware.open_watchdog(Some(name));
                if hardware.watchdog.is_some() {
                    return Ok(hardware);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        // One whose driver is built in.
        hardware.open_watchdog(None);
        // No hardware asks for the last resort.
        if hardware.watchdog.is_none() && hardware.index.is_watchdog(SOFTDOG) {
            hardware.load(SOFTDOG);
            hardware.open_watchdog(Some(SOFTDOG));
        }
        Ok(hardware)
    }

    /// What is wrong if the timer that the loader armed was not taken over: it resets the machine.
    fn not_taken_over(&self, armed: Option<&Timer>) -> Option<String> {
        let timer = armed?;
        let opened = self.watchdog.as_ref().map(|it| it.name.as_str());
        (opened != Some(timer.driver.as_str())).then(|| {
            format!(
                "the loader armed the timer {}, and the watchdog that was opened is {}: the machine restarts {} s \
                 after the loader's end",
                timer.driver,
                opened.unwrap_or("none"),
                timer.seconds
            )
        })
    }

    fn open_watchdog(&mut self, module: Option<&str>) {
        if self.watchdog.is_none() {
            self.watchdog = Watchdog::open(module);
            if let Some(watchdog) = &self.watchdog {
                console::log(format_args!(
                    "watchdog {} armed, {} s",
                    watchdog.name, watchdog.seconds
                ));
            }
        }
    }

    /// Loads a driver and what it needs; a watchdog's so that nothing stops it again.
    fn load(&self, name: &str) {
        let mut order = self.index.with_dependencies(name);
        let driver = order.pop();
        load_all(order.iter());
        let loaded = match &driver {
            Some(driver) if self.index.is_watchdog(driver) => modules::load_watchdog(driver),
            Some(driver) => modules::load(driver),
            None => Ok(()),
        };
        if let Err(failure) = loaded {
            console::log(failure.reason());
        }
    }

    /// The watchdog's time starts again, if there is a watchdog.
    fn ping(&self) {
        self.watchdog.iter().for_each(Watchdog::ping);
    }

    /// Loads the drivers that the hardware asks for, and stops as soon as `enough` says so: what is left is not needed
    /// to start, and the running system loads it.
    fn look(
        &mut self,
        mut enough: impl FnMut() -> Result<Option<Candidate>, Failure>,
    ) -> Result<Option<Candidate>, Failure> {
        self.queue.add(&self.index, hardware::modaliases());
        let mut disks = Vec::new();
        while let Some(name) = self.queue.take() {
            self.load(&name);
            self.ping();
            if self.index.is_watchdog(&name) {
                self.open_watchdog(Some(&name));
            }
            let there = hardware::disks();
            if there != disks {
                disks = there;
                if let Some(candidate) = enough()? {
                    return Ok(Some(candidate));
                }
            }
            // A driver of a bus: what is on it may be the disk.
            if self.uevents.new_devices() {
                self.queue.add(&self.index, hardware::modaliases());
            }
        }
        Ok(None)
    }

    /// Waits for the disk that this start came from.
    fn find_disk(&mut self, start: &Start) -> Result<Option<Candidate>, Failure> {
        let wanted = Wanted {
            nonce: start.handover.nonce,
            recorded: start.handover.recorded,
            guid: start.handover.disk.clone(),
        };
        let limit = if start.is_recovery() {
            DISK_LIMIT_RECOVERY
        } else {
            DISK_LIMIT
        };
        let deadline = Instant::now() + limit;
        loop {
            // The wait has a limit of its own, which may be longer than the watchdog's time.
            self.ping();
            // A nonce that was written for this start is on one disk alone. Otherwise all disks have to be seen.
            let found = self
                .look(|| {
                    if wanted.recorded {
                        disk::find(&wanted)
                    } else {
                        Ok(None)
                    }
                })
                .and_then(|found| match found {
                    Some(candidate) => Ok(Some(candidate)),
                    None => disk::find(&wanted),
                });
            match found {
                Ok(Some(candidate)) => return Ok(Some(candidate)),
                Ok(None) => {}
                Err(failure) if start.is_recovery() => {
                    console::announce(failure.reason());
                    return Ok(None);
                }
                Err(failure) => return Err(failure),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.no_disk(start, &wanted, limit);
            }
            self.uevents.wait(left.min(LOOK_AGAIN));
        }
    }

    fn no_disk(
        &self,
        start: &Start,
        wanted: &Wanted,
        limit: Duration,
    ) -> Result<Option<Candidate>, Failure> {
        let disks: Vec<String> = hardware::disks()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let there = if disks.is_empty() {
            "no disk at all".to_owned()
        } else {
            disks.join(", ")
        };
        let failure = Failure::new(
            "looking for",
            "the disk that this start came from",
            format_args!(
                "after {} s there is {there}, and none has the nonce {} in its boot state (disk {})",
                limit.as_secs(),
                wanted.nonce,
                wanted.guid
            ),
        );
        if start.is_recovery() {
            console::announce(failure.reason());
            return Ok(None);
        }
        Err(failure)
    }
}

/// From the disk to the system's own PID 1.
fn bring_up(
    start: &Start,
    found: Option<Candidate>,
    hardware: &Hardware,
    always: Always,
    timeline: &mut Timeline,
) -> Result<Infallible, Failure> {
    let mut report = Report::default();
    if let Some(wrong) = hardware.not_taken_over(start.handover.timer.as_ref()) {
        console::announce(&wrong);
        report.notes.push(wrong);
    }
    if let Some(candidate) = &found {
        console::log(format_args!(
            "{} on /dev/{}",
            start.handover.slot, candidate.name
        ));
        fail::remember(|facts| {
            facts.disk = Some((candidate.name.clone(), candidate.table.clone()))
        });
        report.disk = Some(format!("/dev/{}", candidate.name));
    }
    // Before recovery as well: without a whole table the kernel has no partitions to install into.
    let table = found.as_ref().map(|candidate| {
        grow_table(candidate, &mut report);
        reread(candidate)
    });
    timeline.mark("table_us");
    match (&start.root, &found) {
        (Root::Verity(hash), Some(candidate)) => {
            report.root_device = open_root(start, candidate, hash)?;
        }
        (Root::Recovery, _) => report.root_device = attach_recovery()?,
        (Root::Verity(_), None) => {
            return Err(Failure::new("looking for", "the disk", "not there"));
        }
    }
    root::mount_root(&report.root_device)?;
    timeline.mark("root_us");

    if let (Some(candidate), Some(table)) = (&found, &table) {
        report.table = table
            .partitions()
            .into_iter()
            .map(|part| {
                let entry = serde_json::json!({
                    "number": part.number, "guid": part.guid, "start": part.start, "size": part.size,
                });
                (part.label, entry)
            })
            .collect();
        report.partitions = table
            .partitions()
            .into_iter()
            .filter_map(|part| {
                Some((
                    part.label,
                    format!("/dev/{}", partition_name(&candidate.name, part.number)?.0),
                ))
            })
            .collect();
    }
    let name = report
        .partitions
        .get("state")
        .map(|path| path.trim_start_matches("/dev/").to_owned());
    let state = state::mount_state(
        name.as_deref(),
        &Path::new(NEW_ROOT).join("state"),
        Path::new(NEW_ROOT),
        hardware.watchdog.as_ref(),
    )?;
    note_state(&state);
    timeline.mark("state_us");

    always.wait();
    // An id that is new because `state` is out of reach says nothing about the machine.
    let first_boot = furnish(start, &mut report)? && state.status.problem().is_none();
    if !root::has_program(INIT) {
        return Err(Failure::new(
            "looking for",
            INIT,
            "the root filesystem has none",
        ));
    }
    timeline.mark("tree_us");
    root::free_initramfs();
    timeline.mark("free_us");
    write_facts(start, &report, &state, first_boot, hardware, timeline)?;
    console::announce(timeline.summary());
    // systemd has the whole of its time until it takes over.
    hardware.ping();
    root::switch()?;
    Err(Failure::new("starting", INIT, Command::new(INIT).exec()))
}

/// Moves the backup table to the end of a larger disk and grows `state`. A failure never ends the start.
fn grow_table(candidate: &Candidate, report: &mut Report) {
    match try_grow(candidate) {
        Ok(grown) => report.grown_gpt = grown,
        Err(failure) => {
            console::announce(failure.reason());
            fail::record(EventKind::STATE_PROBLEM, &failure.reason());
            report.notes.push(failure.reason());
        }
    }
}

fn try_grow(candidate: &Candidate) -> Result<bool, Failure> {
    let disk = format!("/dev/{}", candidate.name);
    let Some(plan) =
        gpt::plan_growth(&candidate.table).context("planning the partition table of", &disk)?
    else {
        return Ok(false);
    };
    let mut device = BlockDevice::open(&candidate.name, true)?;
    gpt::apply(&mut device, &plan).context("growing the partition table of", &disk)?;
    if !plan.restores.is_empty() {
        // With a damaged MBR or primary table, the kernel did not find the partitions.
        if partition_name(&candidate.name, 1).is_none() {
            device.reread_partitions()?;
        }
        let text = format!("damaged, and written again: {}", plan.restores.join(", "));
        console::log(format_args!("{disk}: {text}"));
        fail::record(EventKind::TABLE_REPAIRED, &text);
    }
    let grows = |part: &&gpt::Partition| candidate.table.partition("state").as_ref() != Some(part);
    if let Some(part) = plan.state.as_ref().filter(grows) {
        device.resize_partition(part.number, part.start, part.size)?;
        let text = format!(
            "{disk}: partition table fits the disk, state has {} MiB",
            part.size >> 20
        );
        console::log(&text);
        fail::record(EventKind::GROWN, &text);
    }
    Ok(true)
}

/// The table as it is now.
fn reread(candidate: &Candidate) -> gpt::Table {
    BlockDevice::open(&candidate.name, false)
        .ok()
        .and_then(|mut device| gpt::read(&mut device).ok())
        .unwrap_or_else(|| candidate.table.clone())
}

/// Checks the slot that was started and opens its root, and no other's, under dm-verity.
fn open_root(start: &Start, candidate: &Candidate, hash: &str) -> Result<String, Failure> {
    let target = start.handover.slot;
    let slot = target.slot().context("looking for the root of", target)?;
    let place = |label: &str| format!("{label} (/dev/{})", candidate.name);
    let boot = candidate
        .table
        .partition(slot.label_boot())
        .context("looking for the partition", place(slot.label_boot()))?;
    let part = candidate
        .table
        .partition(slot.label_root())
        .context("looking for the partition", place(slot.label_root()))?;
    let mut device = BlockDevice::open(&candidate.name, false)?;
    let manifest = slot::manifest(
        &mut Part::new(&mut device, boot.start, boot.size),
        target,
        &start.handover.manifest,
    )
    .context("checking", place(slot.label_boot()))?;
    let root =
        slot::root(&manifest, hash, part.size).context("checking", place(slot.label_boot()))?;
    let (_, number) = partition_name(&candidate.name, part.number)
        .context("looking for the kernel's name of", place(slot.label_root()))?;
    dm::open(
        "root",
        &Verity {
            device: number,
            data_size: root.data_size,
            root_hash: root.hash.to_string(),
            salt: root.salt.to_string(),
        },
    )
}

/// Puts recovery's root file behind a loop device. The digest over the whole UKI covers it.
fn attach_recovery() -> Result<String, Failure> {
    use std::os::fd::AsFd;
    let file =
        fs::File::open("/sternpost/root.erofs").context("opening", "/sternpost/root.erofs")?;
    let control = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")
        .context("opening", "/dev/loop-control")?;
    let number = sys::loop_free(control.as_fd()).context("looking for", "a free loop device")?;
    let path = format!("/dev/loop{number}");
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context("opening", &path)?;
    sys::loop_attach(device.as_fd(), file.as_fd())
        .context("attaching recovery's root filesystem to", &path)?;
    Ok(path)
}

fn note_state(state: &State) {
    let Some(reason) = &state.reason else { return };
    let kind = match state.status {
        state::Status::Repaired => EventKind::STATE_REPAIRED,
        _ => EventKind::STATE_PROBLEM,
    };
    fail::record(kind, reason);
}

/// Folders of `state`, /etc, /var, what persists, identity. Whether the identity is new.
fn furnish(start: &Start, report: &mut Report) -> Result<bool, Failure> {
    let state = Path::new(NEW_ROOT).join("state");
    let ours = state.join("sternpost");
    for (path, mode) in [(state.join("var"), 0o755), (ours.clone(), 0o755)] {
        if let Err(failure) = root::folder(&path, mode) {
            console::announce(failure.reason());
            report.notes.push(failure.reason());
        }
    }
    let (id, first_boot, failure) = state::machine_id(&ours, &unique(start));
    if let Some(failure) = failure {
        console::announce(failure.reason());
        report.notes.push(failure.reason());
    }
    root::overlay_etc()?;
    root::write_etc("machine-id", &format!("{id}\n"), 0o444)?;
    if let Ok(hostname) = fs::read_to_string(ours.join("hostname")) {
        root::write_etc("hostname", &hostname, 0o644)?;
    }
    report.notes.extend(root::bind_persistent());
    Ok(first_boot)
}

/// What differs between machines and starts: the loader's hand-over, the firmware's id of the machine, the clocks.
fn unique(start: &Start) -> Vec<u8> {
    let mut bytes = start.raw.clone();
    for id in ["product_uuid", "product_serial", "board_serial"] {
        // A machine without one is told apart by the rest.
        bytes.extend(fs::read(Path::new("/sys/class/dmi/id").join(id)).unwrap_or_default());
    }
    bytes.extend(format!("{:?} {:?}", SystemTime::now(), Instant::now()).into_bytes());
    bytes
}

/// Writes handover.json and boot.json.
fn write_facts(
    start: &Start,
    report: &Report,
    state: &State,
    first_boot: bool,
    hardware: &Hardware,
    timeline: &Timeline,
) -> Result<(), Failure> {
    let facts = serde_json::json!({
        "version": 1,
        "slot": start.handover.slot,
        "kind": if start.is_recovery() { "recovery" } else { "system" },
        "disk": report.disk,
        "partitions": report.partitions,
        "table": report.table,
        "root_device": report.root_device,
        "manifest_digest": start.handover.manifest.to_string(),
        "first_boot": first_boot,
        "grown": { "gpt": report.grown_gpt, "state": state.grown },
        "watchdog": hardware.watchdog.as_ref().map(|watchdog| watchdog.name.clone()),
        "watchdog_seconds": hardware.watchdog.as_ref().map(|watchdog| watchdog.seconds),
        "state": {
            "status": state.status.name(),
            "problem": state.status.problem().map(state::Problem::name),
            "reason": state.reason,
        },
        "notes": report.notes,
        "timeline": timeline.to_json(),
    });
    let run = Path::new(RUN);
    for (name, content) in [
        ("handover.json", start.raw.clone()),
        ("boot.json", facts.to_string().into_bytes()),
    ] {
        fs::write(run.join(name), content).context("writing", run.join(name).display())?;
    }
    Ok(())
}
