//! Systems that are wrong on purpose. A simulator that does not catch each of them proves nothing.
//!
//! Most are made by turning what the right one writes into what the wrong one would have written; those that are wrong
//! about a verdict do something else than the service's step says.

use boot_core::record::{Record, SlotEntry};
use boot_core::slot_header::UKI_OFFSET;
use boot_core::store::COPIES;
use boot_core::transition::TRIES;
use boot_core::{SecurityVersion, Slot, Target};
use bootctl::boot::control::Control;
use bootctl::boot::verdict::Verdict;
use bootctl::failure::Failure;
use bootctl::service::step::Action;

use crate::disk::{Operation, Part, Partition};
use crate::invariants::Invariant;

/// What a wrong system does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
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
    /// The security floor rises to that of the oldest good slot, however high that is.
    FloorOfAnyHeight,
    /// The loader does not ask firmware for floors.
    FirmwareNotAsked,
    /// The loader takes a variable that it did not write for a floor of 0, and leaves it.
    ForeignIsZero,
    /// The loader believes every keyring that the root keys ever signed.
    KeyringBelieved,
    /// The loader starts recovery whatever its floor is.
    RecoveryOfAnyAge,
    /// Both copies of the partition table are written at once.
    TableAtOnce,
    /// The loader counts after it has started.
    CommitAfterStart,
    /// A slot that comes up has all its tries again.
    Refills,
    /// The loader arms the hardware timer for every start.
    TimerAlwaysArmed,
    /// Every slot that comes up is marked good.
    AlwaysHealthy,
    /// The loader starts recovery as soon as one slot does not start.
    RecoveryAtOnce,
    /// The loader believes the header of a slot, and does not read its UKI.
    HeaderBelieved,
    /// An installation that is done again takes what is in the slot for the image.
    HalfForWhole,
    /// A slot that is not well gets its try back, and is started again.
    NeverGoesBack,
    /// A verdict is not written down.
    VerdictForgotten,
    /// An installation writes the slot that runs.
    RunningSlot,
    /// An installation makes room for itself in recovery.
    RecoveryTaken,
    /// Growing the disk formats `state`.
    StateFormatted,
}

/// Where `state` lies on the disk whose partition table is moved.
const STATE: u64 = 9 << 20;

impl Sabotage {
    pub(crate) const ALL: [Self; 24] = [
        Self::BothCopies,
        Self::NoFlush,
        Self::RecordFirst,
        Self::HeaderFirst,
        Self::RenameOnFat,
        Self::FloorOfTheNewest,
        Self::FloorOfAnyHeight,
        Self::FirmwareNotAsked,
        Self::ForeignIsZero,
        Self::KeyringBelieved,
        Self::RecoveryOfAnyAge,
        Self::TableAtOnce,
        Self::CommitAfterStart,
        Self::Refills,
        Self::TimerAlwaysArmed,
        Self::AlwaysHealthy,
        Self::RecoveryAtOnce,
        Self::HeaderBelieved,
        Self::HalfForWhole,
        Self::NeverGoesBack,
        Self::VerdictForgotten,
        Self::RunningSlot,
        Self::RecoveryTaken,
        Self::StateFormatted,
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
            Self::FloorOfAnyHeight => "floor-of-any-height",
            Self::FirmwareNotAsked => "firmware-not-asked",
            Self::ForeignIsZero => "foreign-variable-is-zero",
            Self::KeyringBelieved => "keyring-of-any-age",
            Self::RecoveryOfAnyAge => "recovery-of-any-age",
            Self::TableAtOnce => "table-at-once",
            Self::CommitAfterStart => "count-after-start",
            Self::Refills => "tries-come-back",
            Self::TimerAlwaysArmed => "timer-always-armed",
            Self::AlwaysHealthy => "always-healthy",
            Self::RecoveryAtOnce => "recovery-at-once",
            Self::HeaderBelieved => "header-believed",
            Self::HalfForWhole => "half-taken-for-whole",
            Self::NeverGoesBack => "never-goes-back",
            Self::VerdictForgotten => "verdict-not-recorded",
            Self::RunningSlot => "running-slot-written",
            Self::RecoveryTaken => "recovery-taken",
            Self::StateFormatted => "state-formatted",
        }
    }

    /// What each run has to catch it by; it may be caught by more.
    pub(crate) fn caught_by(self) -> &'static [Invariant] {
        use Invariant as It;
        match self {
            Self::BothCopies | Self::RenameOnFat => {
                &[It::GoodSlotKept, It::FloorHolds, It::OneCopyValid]
            }
            Self::NoFlush | Self::RecordFirst | Self::HeaderFirst => &[It::HeaderLast],
            Self::FloorOfTheNewest => &[It::FloorNotAboveFallback],
            Self::FloorOfAnyHeight => &[It::FloorInReach],
            Self::FirmwareNotAsked => &[It::FloorCounts, It::FirmwareKeeps],
            Self::ForeignIsZero => &[It::FirmwareKeeps],
            Self::KeyringBelieved | Self::RecoveryOfAnyAge => &[It::FloorCounts],
            Self::TableAtOnce => &[It::TableThere],
            Self::CommitAfterStart => &[It::Decrement],
            Self::Refills => &[It::NoRefill],
            Self::AlwaysHealthy => &[It::Quarantine],
            Self::RecoveryAtOnce => &[It::SomethingStarts],
            Self::HeaderBelieved => &[It::NothingHalfWritten],
            Self::HalfForWhole => &[It::NothingHalfWritten, It::Works],
            Self::TimerAlwaysArmed | Self::NeverGoesBack => &[It::NoLoop],
            Self::VerdictForgotten => &[It::Works],
            Self::RunningSlot => &[It::RunningSlotUntouched],
            Self::RecoveryTaken => &[It::RunningSlotUntouched, It::RecoveryKept],
            Self::StateFormatted => &[It::PartitionsUntouched],
        }
    }

    /// Whether it is wrong about the partition table, and about nothing else.
    pub(crate) fn is_about_the_table(self) -> bool {
        matches!(self, Self::TableAtOnce | Self::StateFormatted)
    }

    /// What this system would have written in place of `log`.
    pub(crate) fn rewrite(self, log: &[Operation]) -> Vec<Operation> {
        match self {
            Self::CommitAfterStart
            | Self::FirmwareNotAsked
            | Self::ForeignIsZero
            | Self::KeyringBelieved
            | Self::RecoveryOfAnyAge
            | Self::Refills
            | Self::TimerAlwaysArmed
            | Self::AlwaysHealthy
            | Self::RecoveryAtOnce
            | Self::HeaderBelieved
            | Self::HalfForWhole
            | Self::NeverGoesBack
            | Self::VerdictForgotten => log.to_vec(),
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
                let newest =
                    |record: &Record| [&record.a, &record.b].map(of_entry).into_iter().max();
                let bytes = with_floor(bytes, newest);
                [
                    Operation::Write(Part::State, offset, bytes.into()),
                    Operation::Flush,
                ]
            }),
            Self::FloorOfAnyHeight => commits(log, |offset, bytes| {
                let good = |record: &Record| {
                    let slots = [&record.a, &record.b].into_iter();
                    slots.filter(|it| it.is_good()).map(of_entry).min()
                };
                let bytes = with_floor(bytes, good);
                [
                    Operation::Write(Part::State, offset, bytes.into()),
                    Operation::Flush,
                ]
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
            Self::RunningSlot => log.iter().map(in_the_other_slot).collect(),
            Self::RecoveryTaken => log.iter().flat_map(and_in_recovery).collect(),
            Self::StateFormatted => {
                let format = Operation::Write(Part::Whole, STATE, vec![0; 4096].into());
                [log, &[format, Operation::Flush]].concat()
            }
        }
    }

    /// What this system does where the service's step says `action`; nothing at all, or something else first.
    pub(crate) fn instead_of(
        self,
        action: Action,
        control: &mut Control<Partition>,
        slot: Slot,
    ) -> Result<Option<Action>, Failure> {
        let set_tries = |control: &mut Control<Partition>, tries: fn(u8) -> u8| {
            control.change("trying again", |record| {
                let mut next = record.clone();
                let entry = next.slot_mut(slot);
                entry.tries = tries(entry.tries);
                Ok(next)
            })
        };
        Ok(match (self, action) {
            (Self::Refills, Action::AskLastRun) => {
                set_tries(control, |_| TRIES)?;
                Some(Action::AskLastRun)
            }
            (Self::AlwaysHealthy, Action::Conclude(_)) => Some(Action::Conclude(Verdict::Healthy)),
            (Self::NeverGoesBack, Action::Conclude(Verdict::Unhealthy(_)))
                if !control.record()?.slot(slot).is_good() =>
            {
                set_tries(control, |tries| tries.saturating_add(1))?;
                Some(Action::Reboot)
            }
            (Self::VerdictForgotten, Action::Conclude(_)) => None,
            (_, action) => Some(action),
        })
    }

    /// What an installation writes that takes what is in the slot for the image: its header and the record.
    pub(crate) fn without_images(log: &[Operation]) -> Vec<Operation> {
        let is_image = |operation: &&Operation| {
            matches!(
                operation,
                Operation::Write(Part::Root(_), ..)
                    | Operation::Write(Part::Boot(_), UKI_OFFSET.., _)
            )
        };
        log.iter().filter(|it| !is_image(it)).cloned().collect()
    }
}

/// A write to a slot, made to the one beside it.
fn in_the_other_slot(operation: &Operation) -> Operation {
    match operation {
        Operation::Write(Part::Root(slot), offset, bytes) => {
            Operation::Write(Part::Root(slot.other()), *offset, bytes.clone())
        }
        Operation::Write(Part::Boot(target), offset, bytes) => {
            let other = target.slot().map_or(*target, |slot| slot.other().into());
            Operation::Write(Part::Boot(other), *offset, bytes.clone())
        }
        _ => operation.clone(),
    }
}

/// A write to the first bytes of a slot, made to recovery as well.
fn and_in_recovery(operation: &Operation) -> Vec<Operation> {
    match operation {
        Operation::Write(Part::Boot(Target::A | Target::B), 0, bytes) => {
            let recovery = Operation::Write(Part::Boot(Target::Recovery), 0, bytes.clone());
            vec![operation.clone(), recovery]
        }
        _ => vec![operation.clone()],
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

fn of_entry(entry: &SlotEntry) -> SecurityVersion {
    entry.security_version
}

/// A record, sector by sector, with another floor.
fn with_floor(sector: &[u8], floor: impl Fn(&Record) -> Option<SecurityVersion>) -> Vec<u8> {
    let mut bytes = sector.to_vec();
    let record = bytes.first_chunk().and_then(|it| Record::decode(it).ok());
    if let Some(mut record) = record {
        let floor = floor(&record);
        let security_version = &mut record.floors.system.security_version;
        *security_version = floor.unwrap_or(*security_version);
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
