//! Goes through the disks that cuts leave, first all that are listed, then by chance, and starts a machine from each.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result};
use boot_core::{Slot, Target};

use crate::crash::Epoch;
use crate::disk::{Contents, Disk, Part};
use crate::history::{self, Done, HISTORIES, Step};
use crate::images::Nature;
use crate::invariants::{Before, Invariant, Violation, check_cut, check_rest, check_writes};
use crate::machine::{Machine, World};
use crate::path::{Path, Place};
use crate::random::Random;
use crate::wrong::Wrong;

/// The sector sizes that there are.
pub(crate) const SECTORS: [u32; 2] = [512, 4096];

/// One in so many cuts of an installation is followed by doing it again.
const FOLLOWED: usize = 16;

/// A step, ready to be cut.
struct Prepared {
    done: Done,
    before: Before,
    epochs: Vec<Epoch>,
}

impl Prepared {
    /// Where it may be cut: rot is no program's doing.
    fn epochs(&self) -> &[Epoch] {
        let rots = !self.done.step.rots().is_empty();
        if rots { &[] } else { &self.epochs }
    }
}

/// A history on one sector size.
struct Life {
    history: usize,
    sector: u32,
    steps: Vec<Prepared>,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Tally {
    /// Disks that a machine was started from, or that had been seen before.
    pub(crate) tried: u64,
    /// Different ones among them.
    pub(crate) distinct: HashSet<u64>,
    /// The first violation of each invariant, and how to see it again.
    pub(crate) violations: BTreeMap<Invariant, (Path, Violation)>,
    /// All violations.
    pub(crate) violated: u64,
}

impl Tally {
    /// Adds what another explorer found.
    pub(crate) fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.violated += other.violated;
        self.distinct.extend(other.distinct);
        for (invariant, (path, violation)) in other.violations {
            self.note(invariant, path, violation);
        }
    }

    /// Counts a violation.
    pub(crate) fn violates(&mut self, path: Path, violation: Violation) {
        self.violated += 1;
        self.note(violation.invariant, path, violation);
    }

    /// Keeps the shortest way to each violation.
    fn note(&mut self, invariant: Invariant, path: Path, violation: Violation) {
        let shorter = |old: &(Path, Violation)| path.length() < old.0.length();
        if self.violations.get(&invariant).is_none_or(shorter) {
            self.violations.insert(invariant, (path, violation));
        }
    }
}

/// Explores with one thread.
pub(crate) struct Explorer {
    world: World,
    lives: Vec<Life>,
    random: Random,
    /// What it found.
    pub(crate) tally: Tally,
}

impl Explorer {
    /// With what programs write, or what wrong ones would.
    ///
    /// # Errors
    /// If a history cannot be lived through even without a cut.
    pub(crate) fn new(seed: u64, wrong: Option<Wrong>) -> Result<Self> {
        let mut world = World::new(history::samples()?);
        let mut lives = vec![];
        for (index, history) in HISTORIES.iter().enumerate() {
            for sector in SECTORS {
                let steps = history::live(&world, history, sector)?
                    .into_iter()
                    .map(|done| prepare(&world, done, wrong))
                    .collect::<Result<_>>()?;
                lives.push(Life {
                    history: index,
                    sector,
                    steps,
                });
            }
        }
        world.wrong = wrong;
        Ok(Self {
            world,
            lives,
            random: Random::new(seed),
            tally: Tally::default(),
        })
    }

    /// Every listed cut of every step, each with a second cut of what follows; of `threads`, the share of `thread`.
    pub(crate) fn listed(&mut self, thread: usize, threads: usize) {
        let mut places = vec![];
        for (life, it) in self.lives.iter().enumerate() {
            for (step, prepared) in it.steps.iter().enumerate() {
                for (epoch, it) in prepared.epochs().iter().enumerate() {
                    let cuts = it.cuts().into_iter();
                    places.extend(cuts.map(|cut| (life, step, Place { epoch, cut })));
                }
            }
        }
        for (life, step, place) in places.into_iter().skip(thread).step_by(threads) {
            self.cut(life, step, place, 1);
        }
    }

    /// Cuts by chance, with up to two more of what follows, until `enough` disks were tried.
    pub(crate) fn by_chance(&mut self, enough: u64) {
        while self.tally.tried < enough {
            let life = self.random.below(self.lives.len());
            let step = self.random.below(self.lives[life].steps.len());
            let prepared = &self.lives[life].steps[step];
            if prepared.epochs().is_empty() {
                continue;
            }
            let epoch = self.random.below(prepared.epochs.len());
            let cut = prepared.epochs[epoch].any(&mut self.random);
            self.cut(life, step, Place { epoch, cut }, 2);
        }
    }

    /// One cut, and `more` after it.
    fn cut(&mut self, life: usize, step: usize, place: Place, more: usize) {
        let Self {
            world,
            lives,
            random,
            tally,
        } = self;
        let (life, index) = (&lives[life], life);
        let prepared = &life.steps[step];
        let mut path = Path {
            history: HISTORIES[life.history].name.into(),
            sector: life.sector,
            step,
            places: vec![],
        };
        let key = ((index * 64 + step) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut contents = prepared.epochs[place.epoch].after(&place.cut);
        path.places.push(place);
        let mut before = prepared.before.clone();
        for deeper in 0..=more {
            tally.tried += 1;
            let cut = Before::of(world, &contents);
            if let Err(violation) = check_cut(world, &before, &cut, &contents) {
                return tally.violates(path, violation);
            }
            let new = tally.distinct.insert(contents.fingerprint() ^ key);
            // What was seen is mostly left at that; going on from some of it finds what lies behind.
            if !new && (deeper == more || random.below(4) != 0) {
                return;
            }
            let follow = random.below(FOLLOWED) == 0;
            let rested = rest(world, &cut, &contents, None).and_then(|rested| match follow {
                true => goes_on(world, &rested, prepared).map(|()| rested),
                false => Ok(rested),
            });
            let rested = match rested {
                Ok(rested) => rested,
                Err(violation) => return tally.violates(path, violation),
            };
            if deeper == more {
                return;
            }
            let epochs = Epoch::of(&contents, &rested.log);
            let epoch = random.below(epochs.len());
            let place = epochs[epoch].any(random);
            contents = epochs[epoch].after(&place);
            path.places.push(Place { epoch, cut: place });
            before = cut;
        }
    }

    /// Does again what `path` says, and tells it.
    ///
    /// # Errors
    /// If there is no such place.
    pub(crate) fn replay(
        &self,
        path: &Path,
        tell: &mut dyn FnMut(String),
    ) -> Result<Option<Violation>> {
        let life = self
            .lives
            .iter()
            .find(|life| HISTORIES[life.history].name == path.history && life.sector == path.sector)
            .with_context(|| {
                format!(
                    "there is no history {} on {} bytes",
                    path.history, path.sector
                )
            })?;
        let steps = &HISTORIES[life.history].steps;
        let prepared = life
            .steps
            .get(path.step)
            .context("the history has no such step")?;
        let (name, sector, lived) = (&path.history, path.sector, &steps[..path.step]);
        tell(format!("{name} on sectors of {sector}: {lived:?}"));
        tell(format!("cut in {:?}", prepared.done.step));
        let mut before = prepared.before.clone();
        let mut contents = prepared.done.base.clone();
        let mut log = prepared.done.log.clone();
        for (number, place) in path.places.iter().enumerate() {
            let own;
            let epochs = if number == 0 {
                &prepared.epochs
            } else {
                own = Epoch::of(&contents, &log);
                &own
            };
            let epoch = epochs.get(place.epoch).context("there is no such flush")?;
            let (cut, flushes) = (number + 1, place.epoch);
            let arrived = epoch.describe(&place.cut);
            tell(format!("cut {cut}: after {flushes} flushes; {arrived}"));
            contents = epoch.after(&place.cut);
            let cut = Before::of(&self.world, &contents);
            if let Err(violation) = check_cut(&self.world, &before, &cut, &contents) {
                return Ok(Some(violation));
            }
            let told = RefCell::default();
            let rested = rest(&self.world, &cut, &contents, Some(&told));
            let told: Vec<String> = told.into_inner();
            told.iter().for_each(|line| tell(format!("  {line}")));
            let rested = match rested {
                Ok(rested) => rested,
                Err(violation) => return Ok(Some(violation)),
            };
            tell(format!("  rests in slot {}", rested.slot));
            if number + 1 == path.places.len()
                && let Err(violation) = goes_on(&self.world, &rested, prepared)
            {
                return Ok(Some(violation));
            }
            before = cut;
            log = rested.log;
        }
        Ok(None)
    }
}

fn prepare(world: &World, done: Done, wrong: Option<Wrong>) -> Result<Prepared> {
    if let Some(slot) = done.running {
        check_writes(&done.log, slot).map_err(|violation| anyhow::anyhow!("{violation}"))?;
    }
    let rewritten = wrong.map(|wrong| wrong.rewrite(&done.log));
    Ok(Prepared {
        before: Before::of(world, &done.base),
        epochs: Epoch::of(&done.base, rewritten.as_ref().unwrap_or(&done.log)),
        done,
    })
}

/// A machine that has come to rest.
struct Rested {
    disk: Disk,
    slot: Slot,
    /// What it wrote on the way.
    log: Vec<crate::disk::Operation>,
}

/// Starts a machine from what a cut left, and looks what it comes to.
fn rest(
    world: &World,
    cut: &Before,
    contents: &Contents,
    told: Option<&RefCell<Vec<String>>>,
) -> Result<Rested, Violation> {
    let disk = Disk::new(contents.clone());
    let slot = Machine::new(world, disk.clone(), told).until_it_rests()?;
    let log = disk.take_log();
    check_rest(world, cut, &disk, &log, slot)?;
    Ok(Rested { disk, slot, log })
}

/// An installation that was cut can be done again, and ends in the image that was meant.
fn goes_on(world: &World, rested: &Rested, prepared: &Prepared) -> Result<(), Violation> {
    let (Step::Install(image) | Step::InstallNow(image)) = prepared.done.step else {
        return Ok(());
    };
    let Some(sample) = world.samples.get(image) else {
        return Ok(());
    };
    let holds = world.holds(&rested.disk, rested.slot);
    if sample.nature != Nature::Healthy || holds.is_some_and(|it| it.digest() == sample.digest()) {
        return Ok(());
    }
    let disk = Disk::new(rested.disk.contents());
    let again = history::perform(world, &disk, Step::InstallNow(image), Some(rested.slot));
    again.map_err(|error| Invariant::Works.broken(format!("{error:#}")))?;
    let slot = Machine::new(world, disk.clone(), None).until_it_rests()?;
    let mut boot = disk.partition(Part::Boot(Target::from(slot)));
    let header = boot_core::slot_header::read_header(&mut boot);
    match header {
        Ok(header) if header.manifest_digest == sample.digest() => Ok(()),
        _ => Err(Invariant::Works.broken("done again, the image does not come up")),
    }
}
