//! The drivers that a start needs: which modules are loaded when, and the watchdog that comes with the first of them.
//!
//! Watchdogs first, so that a start that hangs is counted. Then, beside one another: what every start needs (`always`),
//! and what the hardware asks for, until the disk is there.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use boot_core::hand_over::Timer;

use crate::boot_disk::Candidate;
use crate::console;
use crate::failure::{Context, Failure};
use crate::hardware::{self, Uevents};
use crate::modules::{self, Index, Queue};
use crate::watchdog::Watchdog;

/// Loaded before the others, to read the hand-over.
pub(crate) const EFIVARFS: &str = "efivarfs";
/// The kernel's own watchdog.
const SOFTDOG: &str = "softdog";

/// Modules, watched hardware, and what has been loaded for it.
pub(crate) struct Drivers {
    pub(crate) index: Index,
    uevents: Uevents,
    queue: Queue,
    pub(crate) watchdog: Option<Watchdog>,
}

/// The modules that every start needs, on their way: loaded one after the other beside the hand-over and the disk's
/// drivers. The last of them are waited for only where they are needed.
pub(crate) struct Always {
    loaded: Receiver<String>,
    missing: BTreeSet<String>,
}

impl Always {
    pub(crate) fn load(index: &Index) -> Result<Self, Failure> {
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
    pub(crate) fn wait_for_all_but(&mut self, later: &str) {
        while self.missing.iter().any(|name| name != later) {
            match self.loaded.recv() {
                Ok(name) => self.missing.remove(&name),
                Err(_) => return,
            };
        }
    }

    /// Waits until all are loaded.
    pub(crate) fn wait(mut self) {
        self.wait_for_all_but("");
    }
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

impl Drivers {
    /// Opens the watchdog, which arms it: the one that the loader armed (whose driver `armed` gives), or else the first
    /// there is.
    pub(crate) fn start(index: Index, armed: impl Fn() -> Option<String>) -> Result<Self, Failure> {
        let mut drivers = Self {
            index,
            uevents: Uevents::listen()?,
            queue: Queue::default(),
            watchdog: None,
        };
        // Twice, because a bridge's driver may be what makes the watchdog's device appear.
        for _ in 0..2 {
            let modaliases = hardware::modaliases();
            let mut wanted = drivers
                .index
                .wanted_by(modaliases.iter().map(String::as_str));
            wanted.retain(|name| drivers.index.is_watchdog(name));
            if wanted.len() > 1
                && let Some(armed) = armed()
            {
                // Stable, so that the others stay in their order.
                wanted.sort_by_key(|name| armed != *name);
            }
            for name in &wanted {
                drivers.load(name);
                drivers.open_watchdog(Some(name));
                if drivers.watchdog.is_some() {
                    return Ok(drivers);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        // One whose driver is built in.
        drivers.open_watchdog(None);
        // No drivers asks for the last resort.
        if drivers.watchdog.is_none() && drivers.index.is_watchdog(SOFTDOG) {
            drivers.load(SOFTDOG);
            drivers.open_watchdog(Some(SOFTDOG));
        }
        Ok(drivers)
    }

    /// What is wrong if the timer that the loader armed was not taken over: it resets the machine.
    pub(crate) fn not_taken_over(&self, armed: Option<&Timer>) -> Option<String> {
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
    pub(crate) fn ping(&self) {
        self.watchdog.iter().for_each(Watchdog::ping);
    }

    /// Loads the drivers that the hardware asks for, and stops as soon as `enough` says so: what is left is not needed
    /// to start, and the running system loads it.
    pub(crate) fn look(
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

    /// Waits for new devices, but no longer than `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        self.uevents.wait(limit);
    }
}
