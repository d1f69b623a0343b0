//! A machine comes up from what a cut left, and what was cut is done again.

use std::cell::RefCell;

use boot_core::{Digest, Target};

use crate::disk::{Contents, Disk, Operation};
use crate::histories::Quirk;
use crate::history::{Step, perform, written};
use crate::images::Nature;
use crate::invariants::{Before, Invariant, Violation, check_rest, check_writes};
use crate::machine::Machine;
use crate::nvram::Nvram;
use crate::sabotage::Sabotage;
use crate::slot_contents::AllSlotContents;
use crate::world::World;

/// A machine that has come to rest.
pub(crate) struct Rested {
    disk: Disk,
    pub(crate) target: Target,
    /// What it wrote on the way.
    pub(crate) log: Vec<Operation>,
}

impl Rested {
    /// Starts a machine from what a cut left, and looks what it comes to.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn from(
        world: &World,
        cut: &Before,
        contents: &Contents,
        told: Option<&RefCell<Vec<String>>>,
    ) -> Result<Self, Violation> {
        let disk = Disk::new(contents.clone());
        let machine = Machine::new(world, disk.clone(), cut.slots.clone(), told);
        let target = machine.until_it_rests()?;
        let log = disk.take_log();
        check_rest(world, cut, &disk, &log, target)?;
        Ok(Self { disk, target, log })
    }

    /// What was cut can be done again, and comes to what was meant.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn goes_on(&self, world: &World, cut: &Before, step: Step) -> Result<(), Violation> {
        // Beside a good slot every try of a new one is watched by the timer, so that this machine goes back.
        if Nvram::of(&self.disk).has(Quirk::TimerTooEarly) {
            return Ok(());
        }
        let Some(again) = Again::of(world, step, self.target, &cut.slots) else {
            return Ok(());
        };
        let mut disk = Disk::new(self.disk.contents());
        for step in &again.steps {
            disk = done_again(world, &disk, *step, self.target)?;
        }
        let machine = Machine::new(world, disk.clone(), cut.slots.clone(), None);
        let target = machine.until_it_rests()?;
        let slots = AllSlotContents::of(world, &disk.contents());
        if target == again.target && slots.whole(target) == Some(again.digest) {
            return Ok(());
        }
        Err(Invariant::Works.broken(format!("{:?} again, and {target} comes up", again.steps)))
    }
}

/// What doing a step again comes to.
struct Again {
    /// What is done before the machine is started.
    steps: Vec<Step>,
    /// What runs then.
    target: Target,
    /// The image that it holds.
    digest: Digest,
}

impl Again {
    /// Of a step that was cut, after which `running` came up. None for those that are not done again, and where the
    /// cut came so late that there is nothing left to do.
    fn of(world: &World, step: Step, running: Target, slots: &AllSlotContents) -> Option<Self> {
        let slot = written(running);
        match step {
            Step::Install(index) | Step::InstallNow(index) => {
                let sample = world.samples.get(index)?;
                let done = slots.whole(running) == Some(sample.digest());
                (!done && sample.nature == Nature::Healthy).then(|| Self {
                    steps: vec![Step::InstallNow(index)],
                    target: slot.into(),
                    digest: sample.digest(),
                })
            }
            Step::Repair => Some(Self {
                steps: vec![Step::Repair, Step::Activate],
                target: slot.into(),
                digest: slots.whole(slot.other().into())?,
            }),
            Step::UpdateRecovery(index) => Some(Self {
                steps: vec![step, Step::OneShot(Target::Recovery)],
                target: Target::Recovery,
                digest: world.samples.get(index)?.digest(),
            }),
            _ => None,
        }
    }
}

/// The disk after a step was done once more while `running` runs.
fn done_again(world: &World, disk: &Disk, step: Step, running: Target) -> Result<Disk, Violation> {
    let base = disk.contents();
    perform(world, disk, step, Some(running))
        .map_err(|error| Invariant::Works.broken(format!("{step:?} again: {error:#}")))?;
    let log = disk.take_log();
    check_writes(&log, &step.may_write(Some(running)))?;
    Ok(match world.sabotage {
        Some(Sabotage::HalfForWhole) => Disk::new(base.with(&Sabotage::without_images(&log))),
        _ => disk.clone(),
    })
}
