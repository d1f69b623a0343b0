//! Systems that are wrong on purpose. A simulator that does not catch each of them proves nothing.
//!
//! Most are made by turning what the right one writes into what the wrong one would have written.

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
    /// The loader counts after it has started.
    CommitAfterStart,
}

impl Wrong {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::BothCopies,
        Self::NoFlush,
        Self::RecordFirst,
        Self::HeaderFirst,
        Self::RenameOnFat,
        Self::CommitAfterStart,
    ];

    /// As in docs/reliability.md.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BothCopies => "both-copies-at-once",
            Self::NoFlush => "no-flush-before-activate",
            Self::RecordFirst => "record-before-slot",
            Self::HeaderFirst => "passive-named-before-complete",
            Self::RenameOnFat => "rename-on-fat-as-commit",
            Self::CommitAfterStart => "count-after-start",
        }
    }

    /// What this system would have written in place of `log`.
    pub(crate) fn rewrite(self, log: &[Operation]) -> Vec<Operation> {
        match self {
            Self::CommitAfterStart => log.to_vec(),
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
            Self::NoFlush => {
                let kept = |operation: &&Operation| !matches!(operation, Operation::Flush);
                log.iter().filter(kept).cloned().collect()
            }
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
