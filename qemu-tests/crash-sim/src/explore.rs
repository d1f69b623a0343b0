//! Goes through the disks that cuts leave, first all that are listed, then by chance, and starts a machine from each.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result};

use crate::crash::Epoch;
use crate::histories::{self, HISTORIES};
use crate::history::{self, Done};
use crate::invariants::{Before, Invariant, Violation, check_cut, check_writes};
use crate::path::{Path, Place};
use crate::random::Random;
use crate::rest::Rested;
use crate::sabotage::Sabotage;
use crate::world::World;

/// The sector sizes that there are.
pub(crate) const SECTORS: [u32; 2] = [512, 4096];

/// One in so many cuts is followed by doing again what was cut.
const FOLLOWED: usize = 4;

/// A step, ready to be cut.
struct Prepared {
    done: Done,
    before: Before,
    epochs: Vec<Epoch>,
    /// Whether it wrote what it may.
    wrote: Result<(), Violation>,
}

impl Prepared {
    /// Where it may be cut: what is no program's doing is not.
    fn epochs(&self) -> &[Epoch] {
        if self.done.step.is_foreign() {
            &[]
        } else {
            &self.epochs
        }
    }
}

/// A history on one sector size.
struct Life {
    history: usize,
    sector: u32,
    steps: Vec<Prepared>,
}

impl Life {
    /// The way to one of its steps.
    fn path(&self, step: usize) -> Path {
        Path {
            history: HISTORIES[self.history].name.into(),
            sector: self.sector,
            step,
            places: vec![],
        }
    }
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

    /// Whether all of these are violated.
    fn has_all(&self, wanted: &[Invariant]) -> bool {
        let violated = |it| self.violations.contains_key(it);
        !wanted.is_empty() && wanted.iter().all(violated)
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
    /// What was before a cut and what the cut left, where everything held.
    passed: HashSet<(u64, u64)>,
    /// What it found.
    pub(crate) tally: Tally,
}

impl Explorer {
    /// With what programs write, or what wrong ones would.
    ///
    /// # Errors
    /// If a history cannot be lived through even without a cut.
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Result<Self> {
        let mut world = World::new(histories::samples()?);
        let mut lives = vec![];
        for (index, history) in HISTORIES.iter().enumerate() {
            for sector in SECTORS {
                let steps = history::live(&world, history, sector)?
                    .into_iter()
                    .map(|done| prepare(&world, done, sabotage))
                    .collect();
                lives.push(Life {
                    history: index,
                    sector,
                    steps,
                });
            }
        }
        world.sabotage = sabotage;
        Ok(Self {
            world,
            lives,
            random: Random::new(seed),
            passed: HashSet::new(),
            tally: Tally::default(),
        })
    }

    /// Every listed cut of every step, each with a second cut of what follows; of `threads`, the share of `thread`. Up
    /// to where all of `until` are violated, if there are any.
    pub(crate) fn listed(&mut self, thread: usize, threads: usize, until: &[Invariant]) {
        let mut places = vec![];
        for (life, it) in self.lives.iter().enumerate() {
            for (step, prepared) in it.steps.iter().enumerate() {
                if let (0, Err(violation)) = (thread, &prepared.wrote) {
                    self.tally.violates(it.path(step), violation.clone());
                }
                for (epoch, it) in prepared.epochs().iter().enumerate() {
                    let cuts = it.cuts().into_iter();
                    places.extend(cuts.map(|cut| (life, step, Place { epoch, cut })));
                }
            }
        }
        for (life, step, place) in places.into_iter().skip(thread).step_by(threads) {
            if self.tally.has_all(until) {
                return;
            }
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
            passed,
            tally,
        } = self;
        let (life, index) = (&lives[life], life);
        let prepared = &life.steps[step];
        let mut path = life.path(step);
        let key = ((index * 64 + step) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut contents = prepared.epochs[place.epoch].after(&place.cut);
        path.places.push(place);
        let mut before = prepared.before.clone();
        let released = prepared.done.step.releases();
        for deeper in 0..=more {
            tally.tried += 1;
            let fingerprint = contents.fingerprint();
            let new = tally.distinct.insert(fingerprint ^ key);
            // What was seen is mostly left at that; going on from some of it finds what lies behind.
            let ends = !new && (deeper == more || random.below(4) != 0);
            let pair = (before.fingerprint, fingerprint);
            if ends && passed.contains(&pair) {
                return;
            }
            let cut = Before::of(world, &contents);
            if let Err(violation) = check_cut(&before, &cut, &contents, deeper == 0 && released) {
                return tally.violates(path, violation);
            }
            passed.insert(pair);
            if ends {
                return;
            }
            let follow = random.below(FOLLOWED) == 0;
            let rested =
                Rested::from(world, &cut, &contents, None).and_then(|rested| match follow {
                    true => rested
                        .goes_on(world, &cut, prepared.done.step)
                        .map(|()| rested),
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
        if let (true, Err(violation)) = (path.places.is_empty(), &prepared.wrote) {
            return Ok(Some(violation.clone()));
        }
        let mut before = prepared.before.clone();
        let released = prepared.done.step.releases();
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
            if let Err(violation) = check_cut(&before, &cut, &contents, number == 0 && released) {
                return Ok(Some(violation));
            }
            let told = RefCell::default();
            let rested = Rested::from(&self.world, &cut, &contents, Some(&told));
            let told: Vec<String> = told.into_inner();
            told.iter().for_each(|line| tell(format!("  {line}")));
            let rested = match rested {
                Ok(rested) => rested,
                Err(violation) => return Ok(Some(violation)),
            };
            tell(format!("  rests in {}", rested.target));
            if number + 1 == path.places.len()
                && let Err(violation) = rested.goes_on(&self.world, &cut, prepared.done.step)
            {
                return Ok(Some(violation));
            }
            before = cut;
            log = rested.log;
        }
        Ok(None)
    }
}

fn prepare(world: &World, done: Done, sabotage: Option<Sabotage>) -> Prepared {
    let rewritten = sabotage.map(|sabotage| sabotage.rewrite(&done.log));
    let log = rewritten.as_ref().unwrap_or(&done.log);
    Prepared {
        before: Before::of(world, &done.base),
        epochs: Epoch::of(&done.base, log),
        wrote: check_writes(log, &done.step.may_write(done.running)),
        done,
    }
}
