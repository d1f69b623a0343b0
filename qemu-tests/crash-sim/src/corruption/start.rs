//! Starts a machine as the field does: firmware → loader → agent → dm-verity → `bootctl serve`.
//!
//! The loader's table reader and decision, the agent's repair of the table and its checks of disk and slot, `bootctl`'s
//! reading of roots, its repairs and its verdicts are the code that runs in the field. What is not ours is modelled, and
//! no more of it than its rules: which table firmware and Linux accept, and that dm-verity restarts a machine that reads
//! a block which is not what was signed.

use std::cell::{Cell, RefCell};

use boot_core::boot::Boot;
use boot_core::event::EventKind;
use boot_core::floor::Level;
use boot_core::record::Record;
use boot_core::store::BootState;
use boot_core::{Device as _, Digest, Nonce, Slot, Target, Window, gpt};
use bootctl::boot::control::{Context, Control};
use bootctl::boot::root_scan;
use bootctl::boot::slot_check::{self, SlotDevices};
use bootctl::boot::verdict::Verdict;
use bootctl::failure::{Code, Failure};
use bootctl::service::step::{Action, Known, NotWritten, ProfileSeen, Root, Seen, Todo};
use bootctl::state::shutdown_marker::LastRun;
use initrd::boot_disk::{Choice, Wanted};

use crate::disk::{Disk, Operation, Part, Partition};
use crate::nvram::Nvram;
use crate::world::{Firmware as Platform, World};

/// More starts than any damage may take: a root that is read at every start is left after so many.
const STARTS: usize = 32;

/// When a damaged block of a root is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// At every start, before userland is up.
    AtStart,
    /// At every run, after the verdict.
    WhileRunning,
}

/// What firmware asks of LBA 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// A protective MBR, as EDK II does; without one there is no partition.
    Strict,
    /// Nothing: it goes by the table.
    Lenient,
}

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Rests(Target),
    Restarts,
    Nothing(String),
}

/// Where the machine came to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// It runs.
    In(Target),
    /// Nothing of ours was started, and why.
    Nothing(String),
    /// It starts again and again.
    Never,
}

/// A machine over a disk with a partition table.
pub(super) struct Machine<'w> {
    world: &'w World,
    disk: Disk,
    size: u64,
    met: Met,
    firmware: Firmware,
    /// The marker of a run that did not end in an orderly way, which lies on `state`.
    running: Cell<bool>,
    told: RefCell<Vec<String>>,
    starts: Cell<usize>,
}

/// `bootctl`'s hold on the boot state while `booted` runs.
pub(super) fn control(state: Partition, booted: Target) -> Control<Partition> {
    let context = Context {
        booted,
        nonce: Nonce::ZERO,
        now: || 1_800_000_000,
    };
    Control::new(state, context)
}

impl<'w> Machine<'w> {
    /// Over this disk of `size` bytes.
    pub(super) fn new(
        world: &'w World,
        disk: Disk,
        size: u64,
        met: Met,
        firmware: Firmware,
    ) -> Self {
        Self {
            world,
            disk,
            size,
            met,
            firmware,
            running: Cell::new(false),
            told: RefCell::default(),
            starts: Cell::new(0),
        }
    }

    /// What it said on its console.
    pub(super) fn told(&self) -> String {
        self.told.borrow().join("\n")
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> usize {
        self.starts.get()
    }

    fn tell(&self, line: impl Into<String>) {
        self.told.borrow_mut().push(line.into());
    }

    fn restarts(&self, why: impl Into<String>) -> Ended {
        self.tell(why);
        Ended::Restarts
    }

    /// Starts it until it rests.
    pub(super) fn until_it_rests(&self) -> Rest {
        for start in 1..=STARTS {
            self.starts.set(start);
            match self.start(start) {
                Ended::Rests(target) => return Rest::In(target),
                Ended::Restarts => {}
                Ended::Nothing(why) => return Rest::Nothing(why),
            }
        }
        Rest::Never
    }

    fn start(&self, number: usize) -> Ended {
        let mut whole = self.disk.window(0, self.size);
        if self.firmware == Firmware::Strict && !self.has_protective_mbr() {
            return Ended::Nothing("the firmware finds no protective MBR".into());
        }
        let table = match gpt::read(&mut whole) {
            Ok(table) => table,
            Err(error) => return Ended::Nothing(error.to_string()),
        };
        let window = |label: &str| {
            let found = table.find(label).ok()?;
            Some(self.disk.window(found.start, found.size))
        };
        let mut nonce = Nonce([1; 16]);
        nonce.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut platform = Platform {
            world: self.world,
            state: window("boot-state"),
            nvram: Nvram::of(&self.disk),
            slots: Target::ALL.map(|target| window(target.label_boot())),
            nonce,
            told: Some(&self.told),
        };
        let mut boot = Boot::new(self.world);
        let Some(chosen) = boot.next(&mut platform) else {
            return Ended::Nothing("the loader finds nothing to start".into());
        };
        let wanted = Wanted {
            nonce: chosen.nonce,
            recorded: chosen.recorded,
            guid: table.disk_guid.to_string(),
        };
        self.tell(format!("loader: starting {}", chosen.target));
        let floor = boot.floors().of(chosen.target);
        self.agent(chosen.target, &chosen.verified.digest, floor, &wanted)
    }

    /// The initrd agent: its disk, its table, its slot, its root.
    fn agent(&self, target: Target, digest: &Digest, floor: Level, wanted: &Wanted) -> Ended {
        let mut whole = self.disk.window(0, self.size);
        let table = match gpt::read(&mut whole) {
            Ok(table) => table,
            Err(error) => return self.restarts(format!("agent: {error}")),
        };
        // As `initrd::boot_disk::probe` does.
        let nonce = table.find("boot-state").ok().and_then(|found| {
            let mut state = BootState::new(Window::partition(&mut whole, found));
            state.load().record.map(|record| record.nonce)
        });
        let guid = table.disk_guid.to_string();
        let choice = initrd::boot_disk::choose(&[(nonce, guid.as_str())], wanted);
        if choice != Choice::Found(0) {
            return self.restarts(format!("agent: the disk is not the one: {choice:?}"));
        }
        // A failure to grow never ends a start.
        match gpt::plan_growth(&table) {
            Ok(Some(plan)) => {
                self.tell(format!("agent: writes the table, {:?}", plan.restores));
                if let Err(error) = gpt::apply(&mut whole, &plan.steps) {
                    self.tell(format!("agent: {error}"));
                }
            }
            Ok(None) => {}
            Err(error) => self.tell(format!("agent: {error}")),
        }
        let Some(slot) = target.slot() else {
            return self.recovery();
        };
        if !self.has_protective_mbr() || !self.has_primary() {
            return self.restarts("agent: the kernel finds no partitions");
        }
        let table = gpt::read(&mut whole).unwrap_or(table);
        let window = |label: &str| {
            let part = table.find(label).ok()?;
            Some(self.disk.window(part.start, part.size))
        };
        let (Some(boot), Some(root)) = (window(slot.label_boot()), window(slot.label_root()))
        else {
            return self.restarts("agent: a partition is missing");
        };
        let Some(sample) = self.world.sample(digest) else {
            return self.restarts("agent: no such image");
        };
        let kernel = sample.image.manifest.root.as_ref();
        let kernel = kernel.map(|root| root.hash).unwrap_or_default();
        let checked = initrd::slot_manifest::root(
            &mut boot.clone(),
            target,
            digest,
            floor,
            &kernel,
            root.size(),
        );
        if let Err(error) = checked {
            return self.restarts(format!("agent: {slot}: {error}"));
        }
        let own = SlotDevices { boot, root };
        if self.met == Met::AtStart
            && let Err(why) = read_root(&own)
        {
            return self.restarts(format!("dm-verity restarts the machine: {why}"));
        }
        let other = window(slot.other().label_boot()).zip(window(slot.other().label_root()));
        let other = other.map(|(boot, root)| SlotDevices { boot, root });
        match window("boot-state") {
            Some(state) => self.serve(slot, digest, control(state, target), &own, other),
            // There is nothing to write a verdict into: the machine is up, and says so.
            None => Ended::Rests(target),
        }
    }

    /// Recovery's `bootctl serve`.
    fn recovery(&self) -> Ended {
        let mut whole = self.disk.window(0, self.size);
        let mut window = |label: &str| {
            let table = gpt::read(&mut whole).ok()?;
            let part = table.find(label).ok()?;
            Some(self.disk.window(part.start, part.size))
        };
        if let Some(state) = window("boot-state") {
            let mut control = control(state, Target::Recovery);
            let begun = control
                .begin_recovery()
                .inspect_err(|error| self.tell(error.to_string()));
            for slot in begun.unwrap_or_default() {
                let boot = window(slot.label_boot());
                if let Some((boot, root)) = boot.zip(window(slot.label_root())) {
                    self.look_at(&mut control, slot, &SlotDevices { boot, root });
                }
            }
        }
        Ended::Rests(Target::Recovery)
    }

    /// What `bootctl serve` does about a slot whose starts ended without a word.
    fn look_at(
        &self,
        control: &mut Control<Partition>,
        slot: Slot,
        parts: &SlotDevices<Partition>,
    ) {
        self.tell(format!("bootctl: reads the root of slot {slot}"));
        if let Err(lost) = read_root(parts)
            && let Err(error) = control.root_lost(slot, &lost)
        {
            self.tell(error.to_string());
        }
    }

    /// `bootctl serve`, from its beginning to what its verdict comes to, and on: what the service's own step says, done
    /// to this disk.
    fn serve(
        &self,
        slot: Slot,
        digest: &Digest,
        mut control: Control<Partition>,
        own: &SlotDevices<Partition>,
        other: Option<SlotDevices<Partition>>,
    ) -> Ended {
        let mut known = Known::default();
        let mut todo = Todo::default();
        let mut root = None;
        todo.add(&mut known, Seen::Started(None));
        loop {
            let Some(action) = todo.next() else {
                // It was read beside a machine that does not watch: the verdict stood already.
                match root.take() {
                    Some(read) => todo.add(&mut known, Seen::Root(read)),
                    None => break,
                }
                continue;
            };
            let seen = match action {
                Action::Begin => Seen::Begun(control.begin(slot)),
                Action::AskLastRun if self.running.get() => Seen::LastRun(LastRun::Unclean),
                Action::AskLastRun => Seen::LastRun(LastRun::Clean),
                Action::Choose => Seen::Chosen(ProfileSeen {
                    is_there: true,
                    ..ProfileSeen::default()
                }),
                // It is read beside the gate, which does not close before that is done.
                Action::ReadRoot => {
                    root = Some(match read_root(own) {
                        Ok(()) => Root::Sound,
                        Err(lost) => Root::Damaged(lost),
                    });
                    continue;
                }
                Action::Watch => match root.take() {
                    Some(read) => Seen::Root(read),
                    None => Seen::Judged(Verdict::Healthy),
                },
                Action::Conclude(verdict) => {
                    let booted = known.booted(slot, Some(*digest));
                    let settled = control.commit_verdict(&booted, &verdict, "healthy", |record| {
                        known.stays(None, || {
                            self.may_start(slot.other(), other.as_ref(), record)
                        })
                    });
                    self.tell(format!("bootctl: slot {slot}: {verdict:?}: {settled:?}"));
                    Seen::Concluded {
                        verdict,
                        reason: String::new(),
                        came_to: settled.map_err(|error| NotWritten {
                            why: error.to_string(),
                            may_leave: false,
                        }),
                    }
                }
                _ => {
                    match action {
                        Action::Mark => self.running.set(true),
                        Action::NoteUnclean => {
                            control.event(
                                EventKind::UNCLEAN_SHUTDOWN,
                                Some(slot.into()),
                                *digest,
                                "the run before this one did not end in a clean shutdown",
                            );
                        }
                        Action::NoteCorrupt(lost) => {
                            let about = Some(slot.into());
                            control.event(EventKind::ROOT_CORRUPT, about, *digest, &lost);
                        }
                        Action::ClearStreak => {
                            if let Err(error) = control.clear_streak(slot) {
                                self.tell(error.to_string());
                            }
                        }
                        Action::LookAtOther => {
                            if let Some(other) = &other {
                                self.look_at(&mut control, slot.other(), other);
                            }
                        }
                        Action::Degrade(why) => self.tell(why),
                        Action::Reboot => {
                            self.running.set(false);
                            return Ended::Restarts;
                        }
                        _ => {}
                    }
                    continue;
                }
            };
            todo.add(&mut known, seen);
        }
        if read_root(own).is_err() {
            return self.restarts("dm-verity restarts the machine, some time later");
        }
        Ended::Rests(slot.into())
    }

    /// Fails unless the loader would start `slot`.
    fn may_start(
        &self,
        slot: Slot,
        parts: Option<&SlotDevices<Partition>>,
        record: &Record,
    ) -> Result<(), Failure> {
        let parts = parts.ok_or_else(|| Failure::failed("there is no such partition"))?;
        slot_check::may_start(&mut parts.boot.clone(), slot, &self.world.trust, record)
    }

    /// Whether firmware and Linux take LBA 0 for that of a disk with a GPT.
    fn has_protective_mbr(&self) -> bool {
        let contents = self.disk.contents();
        let mut first = [0; 512];
        contents.read(Part::Whole, 0, &mut first);
        contents.is_readable(Part::Whole, 0, first.len())
            && first[510..] == [0x55, 0xaa]
            && first[446..510].chunks(16).any(|record| {
                record[0] == 0 && record[4] == 0xee && record[8..12] == 1u32.to_le_bytes()
            })
    }

    /// Whether the primary table checks: Linux looks at the backup only with `gpt` on its command line.
    fn has_primary(&self) -> bool {
        let table = gpt::read(&mut self.disk.window(0, self.size));
        table.is_ok_and(|table| table.has_primary())
    }

    /// What was written, by anybody.
    pub(super) fn written(&self) -> Vec<(u64, u64)> {
        let log = self.disk.take_log();
        let writes = log.iter().filter_map(|operation| match operation {
            Operation::Write(Part::Whole, offset, bytes) => {
                Some((*offset, offset + bytes.len() as u64))
            }
            Operation::Write(..) | Operation::Flush => None,
        });
        writes.collect()
    }
}

/// `bootctl`'s reading of a whole root; what does not match.
fn read_root(slot: &SlotDevices<Partition>) -> Result<(), String> {
    let (mut boot, mut root) = (slot.boot.clone(), slot.root.clone());
    match root_scan::of(&mut boot, &mut root) {
        Err(error) if error.code == Code::Verification => Err(error.to_string()),
        _ => Ok(()),
    }
}
