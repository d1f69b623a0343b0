//! What is done to a machine in its life, step by step; each step is cut everywhere.

use anyhow::{Context as _, Result, bail};
use boot_core::store::COPIES;
use boot_core::{Device as _, Slot, Target};
use bootctl::install::{Options, Parts, install};
use bootctl::progress::Progress;

use crate::disk::{Contents, Disk, Operation, Part, Partition};
use crate::images::{InMemory, Nature, Sample};
use crate::machine::{Ended, Machine, World, new_disk};

/// Images, by their place in [`samples`].
const ONE: usize = 0;
const TWO: usize = 1;
const UNHEALTHY: usize = 2;
const SILENT: usize = 3;
const THREE: usize = 4;

/// The images of all histories.
///
/// # Errors
/// If one cannot be made.
pub(crate) fn samples() -> Result<Vec<Sample>> {
    [
        ("1.0", 1, Nature::Healthy),
        ("2.0", 2, Nature::Healthy),
        ("2.1-unhealthy", 2, Nature::Unhealthy),
        ("2.2-silent", 2, Nature::Silent),
        ("3.0", 3, Nature::Healthy),
    ]
    .into_iter()
    .map(|(version, security, nature)| Sample::new(version, security, nature, 2))
    .collect()
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start the machine, and let it come to its verdict.
    Start,
    /// Start it, and pull the plug before userland is up.
    PulledPlug,
    /// `bootctl install` of an image into the slot that does not run.
    Install(usize),
    /// `bootctl install --force`, of one that is in quarantine.
    InstallForced(usize),
    /// `bootctl install --now`: with its activation.
    InstallNow(usize),
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
}

impl Step {
    /// Where the copies of the record lie that rot in it.
    pub(crate) fn rots(self) -> &'static [u64] {
        match self {
            DamagedCopy(copy) => COPIES.get(copy..=copy).unwrap_or_default(),
            LostRecord => &COPIES,
            _ => &[],
        }
    }
}

/// A machine's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    /// Its name.
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) steps: &'static [Step],
}

use Step::{
    Activate, DamagedCopy, Install, InstallForced, InstallNow, LostRecord, OneShot, PulledPlug,
    Rollback, Start,
};

/// All of them. Each begins with a new disk that holds version 1.0 in slot A.
pub(crate) const HISTORIES: &[History] = &[
    History {
        name: "upgrades",
        steps: &[
            Start,
            Install(TWO),
            Activate,
            Start,
            InstallNow(THREE),
            Start,
            Start,
        ],
    },
    History {
        name: "unhealthy",
        steps: &[
            Start,
            InstallNow(UNHEALTHY),
            Start,
            Start,
            InstallForced(UNHEALTHY),
            Activate,
            Start,
            Start,
        ],
    },
    History {
        name: "unproven",
        steps: &[
            Start,
            InstallNow(SILENT),
            Start,
            Start,
            Start,
            Start,
            Activate,
            Start,
            Start,
            Start,
            Start,
            Install(TWO),
            Activate,
            Start,
        ],
    },
    History {
        name: "back-and-forth",
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            Rollback,
            Start,
            Rollback,
            Start,
            OneShot(Target::A),
            Start,
            Start,
        ],
    },
    History {
        name: "pulled-plugs",
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            PulledPlug,
            Start,
        ],
    },
    History {
        name: "pulled-on-trial",
        steps: &[
            Start,
            InstallNow(TWO),
            PulledPlug,
            Start,
            Install(THREE),
            Install(TWO),
            Activate,
            Start,
        ],
    },
    History {
        name: "rollback-on-trial",
        steps: &[
            PulledPlug,
            Start,
            InstallNow(THREE),
            PulledPlug,
            Rollback,
            Start,
        ],
    },
    History {
        name: "damaged-copies",
        steps: &[
            Start,
            DamagedCopy(0),
            Start,
            InstallNow(TWO),
            DamagedCopy(1),
            Start,
            Start,
        ],
    },
    History {
        name: "lost-record",
        steps: &[
            Start,
            InstallNow(TWO),
            Start,
            LostRecord,
            Start,
            Start,
            LostRecord,
            PulledPlug,
            Start,
            Start,
        ],
    },
];

/// A step as it was done: what was there, and what was written.
pub(crate) struct Done {
    /// Which step.
    pub(crate) step: Step,
    /// What was on the disk before.
    pub(crate) base: Contents,
    /// What was done to it.
    pub(crate) log: Vec<Operation>,
    /// The slot that ran; none while the machine was off.
    pub(crate) running: Option<Slot>,
}

/// Lives through a history without a cut.
///
/// # Errors
/// If a step does not do what it should.
pub(crate) fn live(world: &World, history: &History, sector: u32) -> Result<Vec<Done>> {
    let first = world.samples.get(ONE).context("no images")?;
    let mut contents = new_disk(sector, first)?;
    let mut running = None;
    let mut done = vec![];
    for step in history.steps {
        let disk = Disk::new(contents.clone());
        let before = running;
        running = perform(world, &disk, *step, running)
            .with_context(|| format!("{}: {step:?}", history.name))?;
        done.push(Done {
            step: *step,
            base: contents,
            log: disk.take_log(),
            running: match step {
                Start | PulledPlug => None,
                _ => before,
            },
        });
        contents = disk.contents();
    }
    Ok(done)
}

/// Does a step; the slot that runs then.
///
/// # Errors
/// If it fails.
pub(crate) fn perform(
    world: &World,
    disk: &Disk,
    step: Step,
    running: Option<Slot>,
) -> Result<Option<Slot>> {
    let machine = Machine::new(world, disk.clone(), None);
    let start = |up| match machine.start(up) {
        Ok(Ended::Rests(slot)) => Ok(Some(slot)),
        Ok(Ended::Restarts) => Ok(None),
        Err(violation) => bail!("{violation}"),
    };
    for offset in step.rots() {
        let mut state = disk.partition(Part::State);
        let garbage = vec![0xff; state.block_size() as usize];
        state.write_at(*offset, &garbage)?;
    }
    if !step.rots().is_empty() {
        return Ok(running);
    }
    let slot = match step {
        Start => return start(true),
        PulledPlug => return start(false),
        // What a step on trial leaves behind is a machine that is on.
        _ => running.or_else(|| last_tried(disk)),
    };
    let slot = slot.context("the machine is off")?;
    let mut control = machine.control(slot.into());
    let other = slot.other();
    match step {
        Install(image) | InstallForced(image) | InstallNow(image) => {
            let sample = world.samples.get(image).context("no such image")?;
            let parts = |slot: Slot| Parts::<Partition> {
                boot: disk.partition(Part::Boot(slot.into())),
                root: disk.partition(Part::Root(slot)),
            };
            let options = Options {
                trust: &world.trust,
                slot: other,
                force: matches!(step, InstallForced(_)),
                scratch: std::env::temp_dir(),
            };
            install(
                &mut control,
                &mut parts(other),
                Some(&mut parts(slot)),
                &mut InMemory(&sample.bundle),
                &options,
                &Progress::silent(),
            )?;
            if matches!(step, InstallNow(_)) {
                control.activate(other)?;
            }
        }
        Activate => {
            control.activate(other)?;
        }
        Rollback => {
            control.rollback(slot, "asked for")?;
        }
        OneShot(target) => {
            control.one_shot(target)?;
        }
        Start | PulledPlug | DamagedCopy(_) | LostRecord => {}
    }
    Ok(Some(slot))
}

/// The slot that the loader started last: it runs, if its userland did not say otherwise.
fn last_tried(disk: &Disk) -> Option<Slot> {
    disk.record()?.last_tried?.slot()
}
