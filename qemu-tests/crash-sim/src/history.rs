//! What is done to a machine, step by step, with the code that does it in the field.

use anyhow::{Context as _, Result, anyhow, bail};
use boot_core::boot::variable::{ATTRIBUTES, FloorVariable};
use boot_core::floor::Floors;
use boot_core::record::{MAX_PRIORITY, SlotEntry};
use boot_core::slot_header::UKI_OFFSET;
use boot_core::store::{BootState, COPIES};
use boot_core::{Device as _, Slot, Target};
use bootctl::boot::admission::Admission;
use bootctl::boot::control::Control;
use bootctl::boot::slot_check::SlotDevices;
use bootctl::install::repair::repair;
use bootctl::install::replace_recovery::replace;
use bootctl::install::{Options, install};
use bootctl::progress::Progress;

use crate::disk::{Contents, Disk, Operation, Part, Partition};
use crate::histories::{History, ONE, RECOVERY};
use crate::images::{InMemory, Sample};
use crate::machine::{Ended, Machine, new_disk};
use crate::nvram::Nvram;
use crate::slot_contents::AllSlotContents;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start the machine, and let it come to its verdict.
    Start,
    /// Start it, and pull the plug before userland is up.
    PulledPlug,
    /// Start it until it stays somewhere.
    ComesUp,
    /// `bootctl install` of an image into the slot that does not run; in recovery, into slot A.
    Install(usize),
    /// `bootctl install --force`, of one that is in quarantine.
    InstallForced(usize),
    /// `bootctl install --now`: with its activation.
    InstallNow(usize),
    /// `bootctl repair-slot`.
    Repair,
    /// `bootctl give-up`.
    GiveUp,
    /// `bootctl update-recovery`.
    UpdateRecovery(usize),
    /// `bootctl activate`.
    Activate,
    /// `bootctl rollback`.
    Rollback,
    /// `bootctl reboot` into a target, once.
    OneShot(Target),
    /// One copy of the record rots.
    DamagedCopy(usize),
    /// Both copies rot.
    LostRecord,
    /// A block of the UKI rots.
    RottenUki(Slot),
    /// A block of the root rots.
    RottenRoot(Slot),
    /// Somebody who has the disk writes an image into a slot, and a record that lets it start; or into recovery.
    PutBack(Target, usize),
    /// The running system makes variables of the names that the loader keeps floors in, before it has any.
    ForeignVariables,
}

use Step::{
    Activate, ComesUp, DamagedCopy, ForeignVariables, GiveUp, Install, InstallForced, InstallNow,
    LostRecord, OneShot, PulledPlug, PutBack, Repair, Rollback, RottenRoot, RottenUki, Start,
    UpdateRecovery,
};

impl Step {
    /// Where the sectors lie that rot in it.
    fn rotten(self) -> Vec<(Part, u64)> {
        let copies = |copies: &[u64]| copies.iter().map(|it| (Part::State, *it)).collect();
        match self {
            DamagedCopy(copy) => copies(COPIES.get(copy..=copy).unwrap_or_default()),
            LostRecord => copies(&COPIES),
            RottenUki(slot) => vec![(Part::Boot(slot.into()), UKI_OFFSET + 4096)],
            RottenRoot(slot) => vec![(Part::Root(slot), 4096)],
            _ => vec![],
        }
    }

    /// Whether what happens in it is no program's doing: something rots, or somebody else writes.
    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, PutBack(..) | ForeignVariables) || !self.rotten().is_empty()
    }

    /// Whether it takes something out of quarantine.
    pub(crate) fn releases(self) -> bool {
        matches!(self, InstallForced(_))
    }

    /// What programs may write in it besides `boot-state`, while `running` runs.
    pub(crate) fn may_write(self, running: Option<Target>) -> Vec<Part> {
        match (self, running) {
            (Install(_) | InstallForced(_) | InstallNow(_) | Repair, Some(running)) => {
                let slot = written(running);
                vec![Part::Boot(slot.into()), Part::Root(slot)]
            }
            (UpdateRecovery(_), Some(Target::A | Target::B)) => vec![Part::Boot(Target::Recovery)],
            (PutBack(target, _), _) => {
                let root = target.slot().map(Part::Root);
                root.into_iter().chain([Part::Boot(target)]).collect()
            }
            _ => self.rotten().into_iter().map(|(part, _)| part).collect(),
        }
    }
}

/// The slot that is written while `running` runs. In recovery one has to be named.
pub(crate) fn written(running: Target) -> Slot {
    running.slot().map_or(Slot::A, Slot::other)
}

/// A step as it was done: what was there, and what was written.
pub(crate) struct Done {
    pub(crate) step: Step,
    /// What was on the disk before.
    pub(crate) base: Contents,
    /// What was done to it.
    pub(crate) log: Vec<Operation>,
    /// What ran; none while the machine was off.
    pub(crate) running: Option<Target>,
}

/// Lives through a history without a cut.
///
/// # Errors
/// If a step does not do what it should.
pub(crate) fn live(world: &World, history: &History, sector: u32) -> Result<Vec<Done>> {
    let image = |index: usize| world.samples.get(index).context("no such image");
    let mut contents = new_disk(sector, image(ONE)?, image(RECOVERY)?)?;
    if let Some(quirk) = history.quirk {
        let disk = Disk::new(contents);
        Nvram::of(&disk).give(quirk)?;
        contents = disk.contents();
    }
    let mut running = None;
    let mut done = vec![];
    for step in history.steps {
        let disk = Disk::new(contents.clone());
        let before = match step {
            Start | PulledPlug | ComesUp => None,
            // What a step on trial leaves behind is a machine that is on.
            _ => running.or_else(|| disk.record()?.last_tried),
        };
        running = perform(world, &disk, *step, before)
            .with_context(|| format!("{}: {step:?}", history.name))?;
        done.push(Done {
            step: *step,
            base: contents,
            log: disk.take_log(),
            running: before,
        });
        contents = disk.contents();
    }
    Ok(done)
}

/// Does a step while `running` runs; what runs then.
///
/// # Errors
/// If it fails.
pub(crate) fn perform(
    world: &World,
    disk: &Disk,
    step: Step,
    running: Option<Target>,
) -> Result<Option<Target>> {
    let known = AllSlotContents::of(world, &disk.contents());
    let machine = Machine::new(world, disk.clone(), known, None);
    match step {
        Start => start(&machine, true),
        PulledPlug => start(&machine, false),
        ComesUp => loop {
            if let Some(target) = start(&machine, true)? {
                break Ok(Some(target));
            }
        },
        PutBack(target, image) => {
            let sample = world.samples.get(image).context("no such image")?;
            put_back(disk, target, sample)?;
            Ok(running)
        }
        ForeignVariables => {
            let mut nvram = Nvram::of(disk);
            nvram.set(FloorVariable::System, &[0xff; 16], 7)?;
            nvram.set(FloorVariable::SystemKeyring, &[0; 8], 7)?;
            nvram.set(FloorVariable::Recovery, &[], ATTRIBUTES as u8)?;
            Ok(running)
        }
        _ if step.is_foreign() => {
            for (part, offset) in step.rotten() {
                let mut device = disk.partition(part);
                let garbage = vec![0xff; device.block_size() as usize];
                device.write_at(offset, &garbage)?;
            }
            Ok(running)
        }
        _ => {
            let running = running.context("the machine is off")?;
            let mut control = machine.control(running);
            command(world, disk, step, &mut control)?;
            Ok(Some(running))
        }
    }
}

/// Writes `sample`, and for a slot a record that calls it good and has no floors.
fn put_back(disk: &Disk, target: Target, sample: &Sample) -> Result<()> {
    let root = target.slot().map(|slot| disk.partition(Part::Root(slot)));
    sample.write_to(target, disk.partition(Part::Boot(target)), root)?;
    let Some(slot) = target.slot() else {
        return Ok(());
    };
    let mut state = BootState::new(disk.partition(Part::State));
    let mut record = state.load().record.context("no valid record")?;
    record.floors = Floors::default();
    let other = record.slot_mut(slot.other());
    other.priority = other.priority.min(1);
    let mut entry = SlotEntry::of(sample.image.contents());
    (entry.successful, entry.priority) = (true, MAX_PRIORITY);
    *record.slot_mut(slot) = entry;
    let committed = state.commit(&record);
    committed.map(|_| ()).map_err(|error| anyhow!("{error}"))
}

fn start(machine: &Machine<'_>, up: bool) -> Result<Option<Target>> {
    match machine.start(up) {
        Ok(Ended::Rests(target)) => Ok(Some(target)),
        Ok(Ended::InRecovery) => Ok(Some(Target::Recovery)),
        Ok(Ended::Restarts) => Ok(None),
        Err(violation) => bail!("{violation}"),
    }
}

/// A command of `bootctl`.
fn command(world: &World, disk: &Disk, step: Step, control: &mut Control<Partition>) -> Result<()> {
    let slot = written(control.context().booted);
    let image = |image: usize| world.samples.get(image).context("no such image");
    let parts = |slot: Slot| SlotDevices::<Partition> {
        boot: disk.partition(Part::Boot(slot.into())),
        root: disk.partition(Part::Root(slot)),
    };
    let (mut target, mut other) = (parts(slot), parts(slot.other()));
    let progress = Progress::silent();
    let admission = Admission::from(world.trust.clone());
    let options = Options {
        admission: &admission,
        slot,
        force: matches!(step, InstallForced(_)),
        scratch: std::env::temp_dir(),
        unwanted: &[],
    };
    match step {
        Install(index) | InstallForced(index) | InstallNow(index) => {
            let mut source = InMemory(&image(index)?.bundle);
            let other = Some(&mut other);
            install(
                control,
                &mut target,
                other,
                &mut source,
                &options,
                &progress,
            )?;
            if matches!(step, InstallNow(_)) {
                control.activate(slot)?;
            }
        }
        Repair => {
            let bundle = parts(slot.other());
            repair(
                control,
                &mut target,
                &mut other,
                bundle,
                &options,
                &progress,
            )?;
        }
        UpdateRecovery(index) => {
            let mut recovery = disk.partition(Part::Boot(Target::Recovery));
            let [mut a, mut b] = Slot::BOTH.map(|slot| parts(slot).boot);
            let mut source = InMemory(&image(index)?.bundle);
            let slots = [&mut a, &mut b];
            replace(
                control,
                &mut recovery,
                slots,
                &mut source,
                &admission,
                &progress,
            )?;
        }
        GiveUp => {
            control.give_up_damaged(slot, "a block of its root")?;
        }
        Activate => {
            control.activate(slot)?;
        }
        Rollback => {
            let running = control.context().booted.slot();
            control.rollback(running.context("recovery runs")?, "asked for")?;
        }
        OneShot(target) => {
            control.one_shot(target)?;
        }
        Start | PulledPlug | ComesUp | DamagedCopy(_) | LostRecord | RottenUki(_)
        | RottenRoot(_) | PutBack(..) | ForeignVariables => {}
    }
    Ok(())
}
