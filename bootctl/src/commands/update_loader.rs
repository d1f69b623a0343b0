//! `update-loader`: what [`crate::loader`] does, over this machine's ESPs, firmware and state.

use block_file::{Access, BlockFile};
use boot_core::event::EventKind;
use boot_core::manifest::Kind;
use boot_core::record::Record;
use boot_core::slot_header::UKI_OFFSET;
use boot_core::trust::Trust;
use boot_core::verify::would_start;
use boot_core::{Digest, Target, esp};
use clap::Args;
use serde_json::json;

use super::{Wait, then_reboot};
use crate::boot;
use crate::boot::admission::Admission;
use crate::boot::control::Control;
use crate::boot::slot_check;
use crate::failure::{Failure, Result};
use crate::install::{self, BundleFront, Room, Wanted};
use crate::loader::efi::{self, Variables};
use crate::loader::{self, Esp, Update, UpdateStage, under_way};
use crate::machine::Machine;
use crate::machine::facts;
use crate::output::Outcome;
use crate::progress::Progress;
use crate::source::{self, Reach};

/// Arguments of `update-loader`.
#[derive(Debug, Args)]
pub struct UpdateLoader {
    /// A bundle of a loader (.spb): a file, - for standard input, or an http:// or https:// address
    #[arg(required_unless_present = "copy")]
    pub source: Option<String>,
    /// Write the ESP that was not started from as a copy of the one that was; ends an update that
    /// has not been started yet
    #[arg(long, conflicts_with_all = ["source", "now", "wait"])]
    pub copy: bool,
    /// Reboot when it is in place
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub wait: Wait,
}

/// `bootctl update-loader`.
pub fn update_loader(machine: &Machine, arguments: &UpdateLoader) -> Result<Outcome> {
    let what = match &arguments.source {
        Some(source) => format!("update-loader {}", source::shown(source)),
        None => "update-loader --copy".into(),
    };
    let booted = machine.slot().ok_or_else(|| {
        Failure::refused("the recovery system is running: it does not change the loader")
            .next("bring a slot up first, with `bootctl install --slot a --now SOURCE`")
    })?;
    let (_lock, mut control) = boot::installing(machine, &what)?;
    let record = control.record()?;
    if !record.slot(booted).is_good() {
        let status = record.slot(booted).status();
        return Err(Failure::refused(format!(
            "slot {booted} is {status}: a new loader would be tried by a slot that is not known to be good"
        ))
        .next("wait for the health gate, or mark the slot good with `bootctl mark-good`"));
    }
    let from = efi::started_from(machine)?;
    match &arguments.source {
        Some(source) => {
            if let Some(update) = Update::read(&under_way::path(machine))? {
                return Err(Failure::refused(format!(
                    "an update of the loader to version {} is not over",
                    update.version
                ))
                .next("restart the machine, which decides it, or end it with `bootctl update-loader --copy`"));
            }
            if let Some(missing) = machine.boot.state_missing() {
                return Err(Failure::refused(missing)
                    .doing("keeping what is under way")
                    .next("the next start must know of the update: bring the state filesystem back first"));
            }
            let outcome = update(
                machine,
                &mut control,
                &record,
                (source.as_str(), &arguments.wait),
                from,
            )?;
            then_reboot(machine, arguments.now, outcome)
        }
        None => copy(machine, &mut control, from),
    }
}

/// Refuses an update that would go onto the ESP from which firmware starts by itself: a loader that does not start would
/// be started there again and again. Which one that is shows in a start with the same loader on both.
fn firmware_chose(machine: &Machine, same: bool, from: Esp) -> Result<()> {
    let to = from.other();
    if !same {
        return Err(Failure::refused(format!(
            "{to} does not hold the loader of {from}, which started this machine: firmware may have tried it first"
        ))
        .next("run `bootctl update-loader --copy`, restart the machine, then update"));
    }
    if under_way::written_mark(machine).exists() {
        return Err(Failure::refused(
            "an ESP was written since the machine started: which one firmware starts by itself is not known",
        )
        .next("restart the machine, then update"));
    }
    Ok(())
}

fn update(
    machine: &Machine,
    control: &mut Control<BlockFile>,
    record: &Record,
    (from, wait): (&str, &Wait),
    started_from: Esp,
) -> Result<Outcome> {
    let progress = Progress::new();
    let admission = Admission::of(machine)?;
    let trust = admission.trust();
    let reach = Reach::of(machine).for_as_long_as(wait.patience());
    let mut source = source::open(from, &progress, &reach)?;
    let wanted = Wanted {
        kind: Kind::Loader,
        floor: admission.floor(Kind::Loader, record),
        room: Room {
            boot: UKI_OFFSET + esp::LOADER_MAX as u64,
            root: 0,
        },
        now: (control.context().now)(),
    };
    let front = BundleFront::read(source.as_mut(), &admission, &wanted)?;
    if let Some(booted) = machine.slot() {
        let mut running = machine.open(booted.label_boot(), Access::Read)?;
        install::keys_not_older(trust, &mut running, front.serial)?;
    }
    let program = install::payload(&front, source.as_mut(), &progress)?;
    let new = loader::check(&program, &front.manifest, trust)?;
    starts_what_starts(machine, record, &admission, &new)?;

    let architecture = trust.architecture;
    let target = started_from.other();
    let mut esps = under_way::esps(machine, Some(target))?;
    let running = esps.loader(started_from, architecture).map_err(|e| {
        e.next(format!(
            "this machine was started from {started_from}, which is damaged now: restart it, so that it starts from {target}, then run `bootctl update-loader --copy`"
        ))
    })?;
    let digest = Digest::of(&program);
    let version = front.manifest.version;
    let old = Digest::of(&running);
    let there = esps.loader(target, architecture).ok();
    let there = there.map(|found| Digest::of(&found));
    if old == digest && there == Some(digest) {
        let json = json!({"loader": {"version": version, "digest": digest, "was_there": true}});
        let text = format!("the loader of version {version} is on both ESPs already");
        return Ok(Outcome::new(text, json));
    }

    firmware_chose(machine, there == Some(old), started_from)?;
    progress.note(&format!(
        "the loader of version {version}, signed and meant for this machine, goes onto {target}"
    ));
    // Firmware is asked before anything is written: if it refuses, there is no update.
    let variables = Variables::of(machine);
    let entry = variables.make_entry(&efi::place_of(machine, target)?, architecture)?;
    let mut update = Update {
        format: 1,
        esp: target,
        loader: digest,
        old: Some(old),
        version,
        manifest: front.digest,
        boot_id: facts::boot_id(),
        stage: UpdateStage::Writing,
    };
    let path = under_way::path(machine);
    under_way::mark_written(machine)?;
    loader::put(&mut update, &program, &mut esps, architecture, |update| {
        update.write(&path)
    })?;
    variables.start_next(entry)?;
    let text = format!(
        "version {version} from {}: on {target}, started next",
        source.name()
    );
    let lock = control.lock()?;
    control.event(EventKind::LOADER_UPDATED, None, front.digest, &text);
    drop(lock);
    let json = json!({"loader": {
        "version": version, "digest": digest, "manifest": front.digest, "esp": target, "was_there": false,
    }});
    Ok(Outcome::new(
        format!(
            "the loader of version {version} is on {target} and is started next; {started_from} gets it once it has started a good slot"
        ),
        json,
    ))
}

/// Refuses a loader that would not start what the present one starts.
fn starts_what_starts(
    machine: &Machine,
    record: &Record,
    old: &Admission,
    new: &Trust,
) -> Result<()> {
    // What verifies by the same keys need not be read twice.
    if old.loaders() == new {
        return Ok(());
    }
    for target in Target::ALL {
        let Ok(mut device) = machine.open(target.label_boot(), Access::Read) else {
            continue;
        };
        if would_start(&mut device, target, old, record).is_err() {
            continue;
        }
        would_start(&mut device, target, new, record).map_err(|rejected| {
            Failure::refused(format!("the new loader would not start {target}: {rejected}"))
                .next("install systems under a keyring that the new root keys have signed, too, into both slots first, and recovery with them; for other algorithms of keys, make the loader with the former root beside the new one")
        })?;
    }
    Ok(())
}

/// `bootctl update-loader --copy`.
fn copy(machine: &Machine, control: &mut Control<BlockFile>, from: Esp) -> Result<Outcome> {
    let to = from.other();
    let architecture = slot_check::trust(machine)?.architecture;
    Variables::of(machine).forget();
    under_way::mark_written(machine)?;
    let digest = under_way::esps(machine, Some(to))?
        .copy_to(to, None, architecture)
        .map_err(|e| {
            e.next(format!(
                "this machine was started from {from}, which is damaged now: restart it, so that it starts from {to}"
            ))
        })?;
    Update::remove(&under_way::path(machine))?;
    let lock = control.lock()?;
    let text = format!("{to} written from {from}, by an operator");
    control.event(EventKind::LOADER_UPDATED, None, Digest::ZERO, &text);
    drop(lock);
    Ok(Outcome::new(
        format!("{to} holds the loader of {from}, which started this machine"),
        json!({"loader": {"esp": to, "from": from, "digest": digest}}),
    ))
}
