//! Systems that are wrong on purpose. A simulator that does not catch each of them proves nothing.
//!
//! Most are made by turning what the right one writes into what the wrong one would have written.

use boot_core::record::Record;
use boot_core::slot_header::UKI_OFFSET;
use boot_core::store::COPIES;

use crate::disk::{Operation, Part};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Both copies of the record are written at once.
    BothCopies,
    /// Nothing is flushed between writing a slot and activating it.
    NoFlush,
    /// The record says that the slot is there before it is written.
    RecordFirst,
    /// The slot's header is written before what it describes, as where a passive image gets its name before it is
    /// complete.
    HeaderFirst,
    /// A commit takes the old record away before the new one is there, as a rename on FAT does.
    RenameOnFat,
    /// The security floor rises to that of the newest slot, good or not.
    FloorOfTheNewest,
    /// Both copies of the partition table are written at once.
    TableAtOnce,
    /// The loader counts after it has started.
    CommitAfterStart,
    /// A slot that comes up has all its tries again.
    Refills,
    /// Every slot that comes up is marked good.
    AlwaysHealthy,
}

impl Wrong {
    /// All of them.
    pub(crate) const ALL: [Self; 10] = [
        Self::BothCopies,
        Self::NoFlush,
        Self::RecordFirst,
        Self::HeaderFirst,
        Self::RenameOnFat,
        Self::FloorOfTheNewest,
        Self::TableAtOnce,
        Self::CommitAfterStart,
        Self::Refills,
        Self::AlwaysHealthy,
    ];

    /// As in docs/reliability.md.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BothCopies => "both-copies-at-once",
            Self::NoFlush => "no-flush-before-activate",
            Self::RecordFirst => "record-before-slot",
            Self::HeaderFirst => "passive-named-before-complete",
            Self::RenameOnFat => "rename-on-fat-as-commit",
            Self::FloorOfTheNewest => "floor-of-the-newest",
            Self::TableAtOnce => "table-at-once",
            Self::CommitAfterStart => "count-after-start",
            Self::Refills => "tries-come-back",
            Self::AlwaysHealthy => "always-healthy",
        }
    }

    /// What this system would have written in place of `log`.
    pub(crate) fn rewrite(self, log: &[Operation]) -> Vec<Operation> {
        match self {
            Self::CommitAfterStart | Self::Refills | Self::AlwaysHealthy => log.to_vec(),
            Self::BothCopies => commits(log, |offset, bytes| {
                let write = |offset| Operation::Write(Part::State, offset, bytes.into());
                [write(offset), write(other_copy(offset))]
            }),
            Self::RenameOnFat => commits(log, |offset, bytes| {
                let write = |offset, bytes| Operation::Write(Part::State, offset, bytes);
                let nothing = vec![0; bytes.len()];
                [
                    write(other_copy(offset), nothing.into()),
                    write(offset, bytes.into()),
                ]
            }),
            Self::FloorOfTheNewest => commits(log, |offset, bytes| {
                let write = Operation::Write(Part::State, offset, with_higher_floor(bytes).into());
                [write, Operation::Flush]
            }),
            Self::NoFlush => {
                without_flushes(log, |part| matches!(part, Part::Boot(_) | Part::Root(_)))
            }
            Self::TableAtOnce => without_flushes(log, |part| part == Part::Whole),
            Self::RecordFirst => first(log, |operation| copy(operation).is_some()),
            Self::HeaderFirst => first(log, |operation| {
                matches!(operation, Operation::Write(Part::Boot(_), ..UKI_OFFSET, bytes)
                    if bytes.iter().any(|byte| *byte != 0))
            }),
        }
    }
}

/// A write of a copy of the record.
fn copy(operation: &Operation) -> Option<(u64, &[u8])> {
    match operation {
        Operation::Write(Part::State, offset, bytes) if COPIES.contains(offset) => {
            Some((*offset, bytes))
        }
        _ => None,
    }
}

/// The log without the flushes that come right after writes to one of `parts`.
fn without_flushes(log: &[Operation], parts: impl Fn(Part) -> bool) -> Vec<Operation> {
    let mut dropped = false;
    let keep = |operation: &&Operation| {
        if let Operation::Write(part, ..) = operation {
            dropped = parts(*part);
        }
        !(dropped && matches!(operation, Operation::Flush))
    };
    log.iter().filter(keep).cloned().collect()
}

/// A record, sector by sector, with the floor of its newest slot.
fn with_higher_floor(sector: &[u8]) -> Vec<u8> {
    let mut bytes = sector.to_vec();
    let record = bytes.first_chunk().and_then(|it| Record::decode(it).ok());
    if let Some(mut record) = record {
        record.floor = record.a.security_version.max(record.b.security_version);
        let encoded = record.encode();
        bytes[..encoded.len()].copy_from_slice(&encoded);
    }
    bytes
}

fn other_copy(offset: u64) -> u64 {
    COPIES[usize::from(offset == COPIES[0])]
}

/// The log with other writes in place of each copy of the record.
fn commits(log: &[Operation], make: impl Fn(u64, &[u8]) -> [Operation; 2]) -> Vec<Operation> {
    let each = |operation: &Operation| match copy(operation) {
        Some((offset, bytes)) => make(offset, bytes).into(),
        None => vec![operation.clone()],
    };
    log.iter().flat_map(each).collect()
}

/// What `wanted` picks, flushed, and then the rest.
fn first(log: &[Operation], wanted: impl Fn(&Operation) -> bool) -> Vec<Operation> {
    let (early, late): (Vec<_>, Vec<_>) = log.iter().cloned().partition(wanted);
    early
        .into_iter()
        .flat_map(|operation| [operation, Operation::Flush])
        .chain(late)
        .collect()
}
