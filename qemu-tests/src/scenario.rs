//! What a scenario is, and what it is given when it runs.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::artefacts::Artefacts;
use crate::disk::Disk;
use crate::machine::{BEFORE, Machine, Options, WRITES};

pub use boot_core::Architecture;

/// What a scenario begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// A machine that is off: it is about the boot, or about a disk that something was done to.
    PowerOn,
    /// A machine on which the first version is well: a clone of one that was saved.
    Well,
}

/// One scenario: a file in `scenarios/`.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it shows, as a name.
    pub name: &'static str,
    /// What it shows, as a sentence.
    pub shows: &'static str,
    /// The architecture that it runs on.
    pub architecture: Architecture,
    /// The recipe of its image.
    pub recipe: &'static str,
    pub begins: Begins,
    /// Belongs to what every change has to pass.
    pub gate: bool,
    /// What it takes on two cores without KVM, images built, in seconds.
    pub seconds: u64,
    pub run: fn(&Context) -> Result<()>,
}

impl Scenario {
    /// When it is ended from outside: far beyond what it takes, because a slow host is no failure.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(300 + self.seconds * 10)
    }

    /// Whether no other machine may run beside it. A control plane at half its speed is killed by its own probes, and at
    /// each start after that has less of the time that kubeadm gives it.
    #[must_use]
    pub fn needs_the_host(&self) -> bool {
        self.recipe.starts_with("kubeadm")
    }
}

/// What a running scenario works with.
pub struct Context {
    scenario: Scenario,
    /// Where its files are: disks, variables, console logs.
    directory: PathBuf,
    artefacts: Artefacts,
    /// Set by the first wait: building images takes as long as it takes.
    deadline: OnceLock<Instant>,
    seed: u64,
    hurried: bool,
    from_power_on: bool,
}

impl Context {
    /// For one run of `scenario`, with its files in `directory`, which is emptied.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(scenario: Scenario, directory: PathBuf, artefacts: Artefacts) -> Result<Context> {
        if directory.exists() {
            std::fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot empty {}", directory.display()))?;
        }
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Context {
            scenario,
            directory,
            artefacts,
            deadline: OnceLock::new(),
            seed: 1,
            hurried: false,
            from_power_on: false,
        })
    }

    /// With every machine booted, none of them a clone of a saved one.
    #[must_use]
    pub fn from_power_on(self, from_power_on: bool) -> Context {
        Context {
            from_power_on,
            ..self
        }
    }

    /// Whether every machine boots.
    #[must_use]
    pub fn is_from_power_on(&self) -> bool {
        self.from_power_on
    }

    /// With another seed than 1 for what a scenario leaves to chance.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Context {
        Context { seed, ..self }
    }

    /// Without waits for what has happened once already: the gate has no time for them.
    #[must_use]
    pub fn hurried(self, hurried: bool) -> Context {
        Context { hurried, ..self }
    }

    /// Whether it goes without them.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// Chance, the same for the same seed.
    #[must_use]
    pub fn chance(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed)
    }

    #[must_use]
    pub fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// What is built for it.
    #[must_use]
    pub fn artefacts(&self) -> &Artefacts {
        &self.artefacts
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path for a file of this run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// At most `wanted`, and never beyond the end of the scenario's own time.
    ///
    /// # Errors
    /// The scenario's time is over.
    pub fn patience(&self, wanted: Duration) -> Result<Duration> {
        let deadline = self
            .deadline
            .get_or_init(|| Instant::now() + self.scenario.limit());
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "the scenario took longer than its limit of {} s",
                self.scenario.limit().as_secs()
            );
        }
        Ok(wanted.min(left))
    }

    /// A throwaway copy of a built disk image.
    ///
    /// # Errors
    /// The copy fails.
    pub fn disk(&self, image: &Path, name: &str, sector_size: u32) -> Result<Disk> {
        Disk::copy(image, &self.file(name), sector_size)
    }

    /// A throwaway copy of the first version's disk, in a machine's usual size.
    ///
    /// # Errors
    /// It cannot be built or copied.
    pub fn first_disk(&self) -> Result<Disk> {
        let built = self.image(crate::artefacts::Version::First)?;
        let disk = self.disk(&built.disk(), "disk.raw", 512)?;
        Ok(disk)
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, disks: &[&Disk], options: Options) -> Result<Machine<'_>> {
        Machine::start(self, disks, options)
    }

    /// Starts a machine whose power can be cut so that `disk` loses what was not flushed: [`Machine::lose_power`].
    ///
    /// # Errors
    /// It cannot be started, or the disk as it is cannot be kept.
    pub fn start_recorded(&self, disk: &Disk, options: Options) -> Result<Machine<'_>> {
        Disk::copy(disk.path(), &self.file(BEFORE), disk.sector_size())?;
        let options = Options {
            record: Some(self.file(WRITES)),
            ..options
        };
        self.start(&[disk], options)
    }
}
