//! Updating the loader: the one thing that no slot stands beside.
//!
//! ```text
//!  bootctl update-loader                      the next start                       bootctl serve, slot good
//!  bundle verified, nothing written   ─────▶  firmware, by BootNext:        ─────▶ started from it: the other
//!  the ESP not booted from written            the ESP that was written             ESP is written the same way
//!  anew (boot_core::esp), BootNext set        └ or the other one, as ever   ─────▶ came back: the reason is noted,
//!                                                                                  that ESP gets its old loader back
//! ```
//!
//! The ESP that started the machine is never written, so at every instant one of the two is whole and holds a loader
//! that has started this machine. BootNext is tried once: whatever ends the new loader, firmware goes on in its own
//! order. What is under way is a file on `state` ([`Update`]); [`decide`] says what follows from it.

pub mod decide;
pub mod efi;
pub mod under_way;

use std::path::Path;

use boot_core::manifest::Manifest;
use boot_core::trust::Trust;
use boot_core::{Architecture, Device, Digest, Version, esp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::decide::{Next, Seen};
use crate::failure::{Doing as _, Failure, Result};
use crate::os::files::{read_json, write_durable};

/// One of the two EFI system partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Esp {
    /// The first.
    #[serde(rename = "esp-a")]
    A,
    /// The second.
    #[serde(rename = "esp-b")]
    B,
}

impl Esp {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its label in the partition table.
    pub const fn label(self) -> &'static str {
        match self {
            Self::A => "esp-a",
            Self::B => "esp-b",
        }
    }

    /// The one beside it.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl std::fmt::Display for Esp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

/// How far an update had come when this was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateStage {
    /// Its ESP is being written.
    Writing,
    /// Its ESP is whole, and to be started next.
    Written,
}

/// An update that is under way: `/state/sternpost/loader-update.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// Version of this file.
    pub format: u32,
    /// The ESP that gets the new loader first.
    pub esp: Esp,
    /// SHA-256 of the new loader.
    #[schemars(with = "String")]
    pub loader: Digest,
    /// SHA-256 of the one that both ESPs held before.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub old: Option<Digest>,
    /// Version of its bundle.
    #[schemars(with = "String")]
    pub version: Version,
    /// Digest of its manifest.
    #[schemars(with = "String")]
    pub manifest: Digest,
    /// The boot in which it was written.
    pub boot_id: String,
    /// How far it had come.
    pub stage: UpdateStage,
}

impl Update {
    /// The one that is under way.
    ///
    /// # Errors
    /// There is a file that cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let update: Self = read_json(path)?;
        if update.format == 1 {
            Ok(Some(update))
        } else {
            Err(Failure::failed(format!(
                "{} has format {}, this bootctl knows 1",
                path.display(),
                update.format
            )))
        }
    }

    /// Keeps it, past the cache.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(Failure::of)?;
        write_durable(path, &json, 0o644).doing(|| format!("writing {}", path.display()))
    }

    /// Nothing is under way any more.
    pub fn remove(path: &Path) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => path
                .parent()
                .map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all()),
        }
        .doing(|| format!("removing {}", path.display()))
    }
}

/// Both ESPs, as devices.
pub struct Esps<D> {
    /// `esp-a`.
    pub a: D,
    /// `esp-b`.
    pub b: D,
}

impl<D: Device> Esps<D> {
    /// One of them.
    pub fn device(&mut self, which: Esp) -> &mut D {
        match which {
            Esp::A => &mut self.a,
            Esp::B => &mut self.b,
        }
    }

    /// The loader on one of them.
    ///
    /// # Errors
    /// There is none, or it has no root of trust.
    pub fn loader(&mut self, which: Esp, architecture: Architecture) -> Result<Vec<u8>> {
        let program = esp::read_loader(self.device(which), architecture)
            .map_err(|e| Failure::failed(e).doing(which))?;
        Trust::from_intact_program(&program).map_err(|e| Failure::of(e).doing(which))?;
        Ok(program)
    }

    /// Writes `program` to one of them, which must not be the one that the machine was started from.
    ///
    /// # Errors
    /// That ESP may hold no filesystem then; the other one is untouched.
    pub fn write(&mut self, which: Esp, program: &[u8], architecture: Architecture) -> Result<()> {
        esp::write(self.device(which), program, architecture).map_err(|e| {
            Failure::failed(e)
                .doing(format!("writing {which}"))
                .next(format!(
                    "look at the disk (journalctl -k); the machine still starts from {}",
                    which.other()
                ))
        })
    }

    /// Gives `to` the loader of the other one.
    ///
    /// # Errors
    /// The other one's cannot be read, or is not `expected`; then nothing was written.
    pub fn copy_to(
        &mut self,
        to: Esp,
        expected: Option<&Digest>,
        architecture: Architecture,
    ) -> Result<Digest> {
        let program = self.loader(to.other(), architecture)?;
        let digest = Digest::of(&program);
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(Failure::verification(format!(
                "{} does not hold the loader that it is to hold",
                to.other()
            )));
        }
        self.write(to, &program, architecture)?;
        Ok(digest)
    }
}

/// Whether `program` is a loader for a machine that now trusts `now`; the new one's root of trust.
///
/// # Errors
/// It is none, or it is for other machines.
pub fn check(program: &[u8], manifest: &Manifest, now: &Trust) -> Result<Trust> {
    let wrong = |what: String| {
        Failure::verification(what)
            .doing(format!("the loader of version {}", manifest.version))
            .next("ask the bundle's publisher for another one; nothing was changed")
    };
    let new = Trust::from_intact_program(program).map_err(|e| wrong(e.to_string()))?;
    for (what, found, expected) in [
        ("product", &new.product, &now.product),
        ("layout", &new.layout, &now.layout),
    ] {
        if found != expected {
            return Err(wrong(format!(
                "it starts {what} {found:?}, this machine has {expected:?}"
            )));
        }
    }
    if new.architecture == now.architecture {
        Ok(new)
    } else {
        Err(wrong(format!(
            "it starts images for {}, this machine is {}",
            new.architecture, now.architecture
        )))
    }
}

/// Writes `program` to the ESP of `update`, with what is under way kept before and after: whichever write is the last
/// one, the next start knows.
///
/// # Errors
/// Keeping or writing fails. The ESP beside it is untouched.
pub fn put<D: Device>(
    update: &mut Update,
    program: &[u8],
    esps: &mut Esps<D>,
    architecture: Architecture,
    mut keep: impl FnMut(&Update) -> Result<()>,
) -> Result<()> {
    update.stage = UpdateStage::Writing;
    keep(update)?;
    esps.write(update.esp, program, architecture)?;
    update.stage = UpdateStage::Written;
    keep(update)
}

/// What an update came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// It is not over.
    NotYet,
    /// Both ESPs hold the new loader, which has started this machine.
    Done,
    /// The new loader is given up, and why; its ESP has the old one again.
    PutBack(String),
}

/// Goes on with `update` after a start; over any device.
///
/// # Errors
/// An ESP could not be read or written. The one that started the machine is as it was.
pub fn bring_forward<D: Device>(
    update: &Update,
    boot_id: &str,
    started_from: Esp,
    esps: &mut Esps<D>,
    architecture: Architecture,
) -> Result<UpdateOutcome> {
    let other = update.esp.other();
    let seen = Seen {
        restarted: update.boot_id != boot_id,
        started_from,
        other_has_it: esps
            .loader(other, architecture)
            .is_ok_and(|program| Digest::of(&program) == update.loader),
    };
    match decide::next(update, &seen) {
        Next::Wait => Ok(UpdateOutcome::NotYet),
        Next::Finished => Ok(UpdateOutcome::Done),
        Next::Spread => {
            esps.copy_to(other, Some(&update.loader), architecture)?;
            Ok(UpdateOutcome::Done)
        }
        Next::PutBack(why) => {
            esps.copy_to(update.esp, update.old.as_ref(), architecture)?;
            Ok(UpdateOutcome::PutBack(why))
        }
    }
}
