//! An update of the loader that is under way on this machine: where it is kept, and what the start that decides makes
//! of it.

use std::path::PathBuf;

use block_file::{Access, BlockFile};
use boot_core::Slot;
use boot_core::event::EventKind;

use super::efi::{self, Variables};
use super::{Esp, Esps, Update, UpdateOutcome};
use crate::boot::{self, slot_check};
use crate::failure::{Code, Doing as _, Result};
use crate::machine::{Machine, facts};
use crate::os::files::write_atomic;

/// Where an update is kept that is under way.
pub fn path(machine: &Machine) -> PathBuf {
    machine.paths().state("loader-update.json")
}

/// There once an ESP was written in this boot.
pub fn written_mark(machine: &Machine) -> PathBuf {
    machine.paths().run("esp-written")
}

/// Both ESPs; `written` alone is opened to be written.
pub fn esps(machine: &Machine, written: Option<Esp>) -> Result<Esps<BlockFile>> {
    let access = |esp: Esp| match written == Some(esp) {
        true => Access::Alone,
        false => Access::Read,
    };
    let open = |esp: Esp| machine.open(esp.label(), access(esp));
    Ok(Esps {
        a: open(Esp::A)?,
        b: open(Esp::B)?,
    })
}

/// What the service does about an update that is under way, in the good slot `booted`; what that came to, unless it
/// is not over or there is none.
///
/// # Errors
/// It could not be brought to an end, and is given up.
pub fn go_on(machine: &Machine, booted: Slot) -> Result<Option<UpdateOutcome>> {
    let path = path(machine);
    if !path.exists() {
        return Ok(None);
    }
    if !boot::view(machine)?.record()?.slot(booted).is_good() {
        return Ok(None);
    }
    let (_lock, mut control) = match boot::installing(machine, "serve") {
        Err(e) if e.code == Code::Locked => return Ok(None),
        other => other?,
    };
    let Some(update) = Update::read(&path)? else {
        return Ok(None);
    };
    let outcome = bring_forward_here(machine, &update);
    let (esp, version) = (update.esp, &update.version);
    let (kind, text) = match &outcome {
        Ok(UpdateOutcome::NotYet) => return Ok(None),
        Ok(UpdateOutcome::PutBack(why)) => (
            EventKind::LOADER_GIVEN_UP,
            format!("version {version}: {why}; {esp} holds the old one again"),
        ),
        Ok(UpdateOutcome::Done) => (
            EventKind::LOADER_UPDATED,
            format!("version {version} has started this machine: on both ESPs"),
        ),
        // The next start tries again: an ESP may hold nothing now.
        Err(e) => (
            EventKind::DEGRADED,
            format!("updating the loader to version {version}: {e}"),
        ),
    };
    if outcome.is_ok() {
        Variables::of(machine).forget();
        Update::remove(&path)?;
    }
    let _lock = control.lock()?;
    control.event(kind, None, update.manifest, &text);
    outcome.map(Some)
}

/// Remembers, until the next boot, that an ESP was written.
pub fn mark_written(machine: &Machine) -> Result<()> {
    let mark = written_mark(machine);
    write_atomic(&mark, &[], 0o644).doing(|| format!("writing {}", mark.display()))
}

fn bring_forward_here(machine: &Machine, update: &Update) -> Result<UpdateOutcome> {
    let started_from = efi::started_from(machine)?;
    let architecture = slot_check::trust(machine)?.architecture;
    let mut esps = esps(machine, Some(started_from.other()))?;
    let boot_id = facts::boot_id();
    if update.boot_id != boot_id {
        mark_written(machine)?;
    }
    super::bring_forward(update, &boot_id, started_from, &mut esps, architecture)
}
