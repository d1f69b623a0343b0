//! What a start comes to in the boot state: what is put right when the service begins, and what a verdict changes.
//!
//! Over any device, like [`crate::boot::control`], whose functions it calls in the order that matters; the service adds
//! when (`service::verdict_commit`) and what follows (`service::step`).

use boot_core::event::EventKind;
use boot_core::record::Record;
use boot_core::{Device, Digest, Slot};

use crate::boot::control::Control;
use crate::failure::{Failure, Result};

/// How a start ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that the profile watches is well.
    Healthy,
    /// It is not, and why.
    Unhealthy(String),
}

/// What a verdict came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The slot is good.
    Healthy,
    /// A good slot that is not well: an event says so.
    Noted,
    /// The slot is not given up, and why.
    Stays(String),
    /// The slot is given up, or as good as that: the machine starts again.
    GoingBack,
}

/// What the beginning of a start found.
#[derive(Debug)]
pub struct Begun {
    /// The booted slot is not yet good.
    pub on_trial: bool,
    /// A verdict against it that did not get as far as its commit; an error if the rings cannot be read.
    pub unfinished: Result<Option<String>>,
    /// The starts of the other slot ended without a word, and this is the first one to notice.
    pub other_silent: bool,
}

/// What is known of the booted slot beside the record.
#[derive(Debug, Clone, Copy)]
pub struct Booted {
    pub slot: Slot,
    /// The manifest that runs, where the agent said it.
    pub digest: Option<Digest>,
    /// It was on trial when it started.
    pub on_trial: bool,
    /// Its root is not what was signed.
    pub root_damaged: bool,
}

impl Booted {
    /// The manifest that runs, which the record must have for the slot.
    fn running(&self, recorded: Digest) -> Result<Digest> {
        match self.digest {
            Some(booted) if booted != recorded => Err(Failure::refused(format!(
                "manifest {booted} is running, the record has {recorded} for this slot"
            ))),
            _ => Ok(recorded),
        }
    }
}

impl<D: Device> Control<D> {
    /// What comes before anything is brought up: the record made whole, and what the starts before left to be said.
    ///
    /// # Errors
    /// If there is no valid record.
    pub fn begin(&mut self, slot: Slot) -> Result<Begun> {
        if let Err(e) = self.repair() {
            eprintln!("bootctl: {e}");
        }
        let on_trial = !self.record()?.slot(slot).is_good();
        let silent = self.note_silent(slot.other());
        let other_silent = *silent.as_ref().unwrap_or(&false);
        let unfinished = silent
            .and_then(|_| self.unfinished(slot))
            .map(|entry| entry.map(|entry| entry.reason));
        Ok(Begun {
            on_trial,
            unfinished,
            other_silent,
        })
    }

    /// The same where recovery runs: the record made whole, and which slots' starts ended without a word.
    ///
    /// # Errors
    /// If there is no valid record, or a ring cannot be read.
    pub fn begin_recovery(&mut self) -> Result<Vec<Slot>> {
        self.repair()?;
        let mut silent = vec![];
        for slot in Slot::BOTH {
            if self.note_silent(slot)? {
                silent.push(slot);
            }
        }
        Ok(silent)
    }

    /// Writes what follows from a verdict. `stays` says why the machine stays up in a slot that is not well, if it
    /// does; `healthy` what is noted of one that is.
    ///
    /// # Errors
    /// Nothing is decided then; it can be tried again.
    pub fn commit_verdict(
        &mut self,
        booted: &Booted,
        verdict: &Verdict,
        healthy: &str,
        stays: impl FnOnce(&Record) -> Option<String>,
    ) -> Result<Settled> {
        let slot = booted.slot;
        let record = match self.record() {
            Ok(record) => record,
            Err(lost) => {
                return match (verdict, booted.digest) {
                    (Verdict::Unhealthy(reason), Some(digest)) if booted.on_trial => {
                        // The loader makes a new record of what verifies; the quarantine speaks against this slot then.
                        self.quarantine(&digest, reason)?;
                        Ok(Settled::GoingBack)
                    }
                    _ => Err(lost),
                };
            }
        };
        let entry = record.slot(slot);
        let reason = match verdict {
            Verdict::Healthy => {
                if !entry.is_good() {
                    let digest = booted.running(entry.digest)?;
                    self.mark_good(slot, &digest, healthy)?;
                }
                return Ok(Settled::Healthy);
            }
            Verdict::Unhealthy(reason) => reason,
        };
        let about = Some(slot.into());
        if entry.is_good() && !booted.root_damaged {
            self.event(EventKind::UNHEALTHY, about, entry.digest, reason);
            return Ok(Settled::Noted);
        }
        if let Some(stay) = stays(&record) {
            let text = format!("{reason}; stays up: {stay}");
            self.event(EventKind::DEGRADED, about, entry.digest, &text);
            return Ok(Settled::Stays(stay));
        }
        let digest = booted.running(entry.digest)?;
        if booted.root_damaged {
            self.abandon(slot, &digest, reason)?;
        } else {
            self.give_up(slot, &digest, reason)?;
        }
        Ok(Settled::GoingBack)
    }
}
