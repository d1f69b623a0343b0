//! What is done to a machine, step by step, with the code that does it in the field.

use anyhow::{Context as _, Result, bail};
use boot_core::slot_header::UKI_OFFSET;
use boot_core::store::COPIES;
use boot_core::{Device as _, Slot, Target};
use bootctl::boot::control::Control;
use bootctl::boot::slot_check::SlotDevices;
use bootctl::install::repair::repair;
use bootctl::install::replace_recovery::replace;
use bootctl::install::{Options, install};
use bootctl::progress::Progress;

use crate::disk::{Contents, Disk, Operation, Part, Partition};
use crate::histories::{History, ONE, RECOVERY};
use crate::images::InMemory;
use crate::machine::{Ended, Machine, new_disk};
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
}

use Step::{
    Activate, ComesUp, DamagedCopy, GiveUp, Install, InstallForced, InstallNow, LostRecord,
    OneShot, PulledPlug, Repair, Rollback, RottenRoot, RottenUki, Start, UpdateRecovery,
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

    /// Whether something rots in it, which is no program's doing.
    pub(crate) fn is_rot(self) -> bool {
        !self.rotten().is_empty()
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
        _ if step.is_rot() => {
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
    let options = Options {
        trust: &world.trust,
        slot,
        force: matches!(step, InstallForced(_)),
        scratch: std::env::temp_dir(),
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
                &world.trust,
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
        | RottenRoot(_) => {}
    }
    Ok(())
}
