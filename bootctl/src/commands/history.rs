//! `history`: the event ring and the quarantine.

use std::fmt::Write as _;

use boot_core::event::Event;
use boot_core::quarantine::QuarantineEntry;
use clap::Args;
use serde_json::{Value, json};

use crate::boot;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::machine::facts::target_name;
use crate::os::clock;
use crate::output::{Outcome, short};

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct History {
    /// The latest N events only
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

/// `bootctl history`.
pub fn history(machine: &Machine, arguments: &History) -> Result<Outcome> {
    let mut control = boot::view(machine)?;
    let mut events = control
        .store()
        .events()
        .map_err(|e| Failure::of(e).doing("reading the event ring"))?;
    let quarantined = control
        .store()
        .quarantined()
        .map_err(|e| Failure::of(e).doing("reading the quarantine ring"))?;
    let first = events.len().saturating_sub(arguments.limit);
    events.drain(..first);
    let json = json!({
        "events": events.iter().map(event_json).collect::<Vec<_>>(),
        "quarantine": quarantined.iter().map(quarantine_json).collect::<Vec<_>>(),
    });
    Ok(Outcome::new(text(&events, &quarantined), json))
}

/// An event for programs.
pub fn event_json(event: &Event) -> Value {
    json!({
        "sequence": event.sequence,
        "time": (event.time != 0).then_some(event.time),
        "stage": event.stage.name(),
        "kind": event.kind.name(),
        "kind_number": event.kind.0,
        "slot": event.slot.map(target_name),
        "nonce": event.nonce,
        "manifest": (!event.digest.is_zero()).then_some(event.digest),
        "text": event.text,
    })
}

fn quarantine_json(entry: &QuarantineEntry) -> Value {
    json!({
        "manifest": entry.digest,
        "time": (entry.time != 0).then_some(entry.time),
        "reason": entry.reason,
    })
}

fn text(events: &[Event], quarantined: &[QuarantineEntry]) -> String {
    let mut out = String::new();
    if events.is_empty() {
        out.push_str("nothing has happened yet\n");
    }
    for event in events {
        let slot = event.slot.map_or_else(String::new, |t| t.to_string());
        let _ = writeln!(
            out,
            "{:23}  {:8} {:14} {:9} {}",
            clock::format(event.time),
            event.stage.name(),
            event.kind,
            slot,
            event.text
        );
    }
    if !quarantined.is_empty() {
        out.push_str("\nIn quarantine (installed again only with --force):\n");
        for entry in quarantined {
            let _ = writeln!(
                out,
                "  {}  {}  {}",
                short(&entry.digest),
                clock::format(entry.time),
                entry.reason
            );
        }
    }
    out.trim_end().to_owned()
}
