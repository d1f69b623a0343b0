//! Runs a cell, and compares what came of it with what was to come.

use std::ops::Range;

use anyhow::{Context as _, Result};
use boot_core::event::EventKind;
use boot_core::layout::Label;
use boot_core::record::{Record, SlotStatus};
use boot_core::slot_header::read_slot;
use boot_core::store::{BootState, CopyHealth};
use boot_core::{Slot, Target};

use super::appliance::Appliance;
use super::start::{Firmware, Machine, Met, Rest};
use super::table::{Cell, Outcome, Region, Role};
use crate::disk::{Contents, Disk, Part};
use crate::world::World;

/// An outcome that is not the expected one.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    /// What was to come of it.
    pub(super) expected: Outcome,
    /// What came.
    pub(super) found: String,
}

/// What came of one damage, met in one way.
pub(super) struct Run {
    /// Where the machine came to rest.
    pub(super) rest: Rest,
    /// How often it was started.
    pub(super) starts: usize,
    /// What it said.
    pub(super) told: String,
    /// What is wrong with that, if anything.
    pub(super) wrong: Option<Wrong>,
}

/// Starts the damaged machine, in each way in which the damage may be met.
pub(super) fn runs(world: &World, machine: &Appliance, cell: Cell, damaged: &Contents) -> Vec<Run> {
    let strict = (Met::AtStart, Firmware::Strict, cell.expected);
    let ways = match cell.expected {
        Outcome::Insists => vec![
            (Met::AtStart, Firmware::Strict, Outcome::Nothing),
            (Met::AtStart, Firmware::Lenient, Outcome::Mended),
        ],
        Outcome::Verity | Outcome::VerityRecovery => {
            vec![strict, (Met::WhileRunning, Firmware::Strict, cell.expected)]
        }
        _ => vec![strict],
    };
    ways.into_iter()
        .map(|(met, firmware, expected)| {
            let disk = Disk::new(damaged.clone());
            let started = Machine::new(world, disk.clone(), machine.size, met, firmware);
            let rest = started.until_it_rests();
            let after = After {
                world,
                machine,
                cell,
                damaged,
                disk,
            };
            let found = after.differs(expected, &rest, &started.written());
            Run {
                rest,
                starts: started.starts(),
                told: started.told(),
                wrong: found.err().map(|found| Wrong {
                    expected,
                    found: format!("{found:#}"),
                }),
            }
        })
        .collect()
}

/// A machine that has come to rest.
struct After<'a> {
    world: &'a World,
    machine: &'a Appliance,
    cell: Cell,
    damaged: &'a Contents,
    disk: Disk,
}

impl After<'_> {
    /// Fails with what is not as expected.
    fn differs(&self, expected: Outcome, rest: &Rest, written: &[(u64, u64)]) -> Result<()> {
        self.only_ours_is_written(written)?;
        let (first, other) = (self.machine.first, self.machine.first.other());
        match expected {
            Outcome::None => {
                anyhow::bail!("the damage changes something, and the machine ends in {rest:?}")
            }
            Outcome::AsThePiece | Outcome::InTurn => match rest {
                Rest::In(target) => self.is_whole(*target),
                rest => anyhow::bail!("{rest:?}"),
            },
            Outcome::Same | Outcome::Firmware | Outcome::Kernel => {
                self.rests(rest, first.into())?;
                self.bystanders_are_kept()
            }
            Outcome::Mended => {
                self.rests(rest, first.into())?;
                self.is_mended()?;
                self.bystanders_are_kept()
            }
            Outcome::Rebuilt => {
                self.rests(rest, first.into())?;
                self.has_event(EventKind::RECORD_REBUILT, None)?;
                self.is_mended()?;
                self.status_of(first, SlotStatus::Good)
            }
            Outcome::Earlier => {
                self.rests(rest, other.into())?;
                self.is_mended()
            }
            Outcome::Other => {
                self.rests(rest, other.into())?;
                self.has_event(EventKind::REJECTED, Some(first.into()))?;
                self.bystanders_are_kept()
            }
            Outcome::Verity => {
                self.rests(rest, other.into())?;
                self.has_event(EventKind::ROOT_CORRUPT, Some(first.into()))?;
                self.status_of(first, SlotStatus::GivenUp)?;
                self.bystanders_are_kept()
            }
            Outcome::Recovery => {
                self.rests(rest, Target::Recovery)?;
                self.has_event(EventKind::REJECTED, Some(first.into()))
            }
            Outcome::VerityRecovery => {
                self.rests(rest, Target::Recovery)?;
                self.has_event(EventKind::ROOT_CORRUPT, Some(first.into()))
            }
            Outcome::Nothing => match rest {
                Rest::Nothing(_) => Ok(()),
                rest => anyhow::bail!("{rest:?}"),
            },
            Outcome::Insists => Ok(()),
        }
    }

    fn rests(&self, rest: &Rest, target: Target) -> Result<()> {
        anyhow::ensure!(*rest == Rest::In(target), "{rest:?}");
        self.is_whole(target)
    }

    /// What runs is an image, to the byte.
    fn is_whole(&self, target: Target) -> Result<()> {
        let Some(slot) = target.slot() else {
            return Ok(());
        };
        let window = |label: &str| {
            let label = Label::from_label(label).context("no such partition")?;
            let (start, size) = self.machine.place(label)?;
            anyhow::Ok((self.disk.window(start, size), start))
        };
        let (mut boot, boot_start) = window(slot.label_boot())?;
        let (_, root_start) = window(slot.label_root())?;
        let parts = read_slot(&mut boot)?;
        let sample = self.world.sample(&parts.header.manifest_digest);
        let sample = sample.context("what runs is no image")?;
        let contents = self.disk.contents();
        for (start, wanted) in [
            (boot_start + parts.header.uki_offset, &sample.image.uki),
            (root_start, &sample.root),
        ] {
            let mut found = vec![0; wanted.len()];
            contents.read(Part::Whole, start, &mut found);
            anyhow::ensure!(found == *wanted, "slot {slot} runs and is not whole");
        }
        Ok(())
    }

    /// Programs write the boot state and the partition table, and nothing else: no slot, no ESP, not `state`.
    fn only_ours_is_written(&self, written: &[(u64, u64)]) -> Result<()> {
        let (start, size) = self.machine.place(Label::BootState)?;
        let ours: [Range<u64>; 3] = [
            0..1 << 20,
            start..start + size,
            self.machine.size - (1 << 20)..self.machine.size,
        ];
        for (from, to) in written {
            let known = ours.iter().any(|it| it.start <= *from && *to <= it.end);
            anyhow::ensure!(known, "bytes {from} to {to} are written");
        }
        Ok(())
    }

    fn state(&self) -> Result<BootState<crate::disk::Partition>> {
        let (start, size) = self.machine.place(Label::BootState)?;
        Ok(BootState::new(self.disk.window(start, size)))
    }

    fn record(&self) -> Result<Record> {
        self.state()?.load().record.context("no valid record")
    }

    fn has_event(&self, kind: EventKind, about: Option<Target>) -> Result<()> {
        let events = self.state()?.events()?;
        let before = {
            let (start, size) = self.machine.place(Label::BootState)?;
            let disk = Disk::new(self.damaged.clone());
            let events = BootState::new(disk.window(start, size)).events()?;
            events.last().map_or(0, |event| event.sequence + 1)
        };
        let found = events.iter().any(|event| {
            event.sequence >= before
                && event.kind == kind
                && about.is_none_or(|about| event.slot == Some(about))
        });
        anyhow::ensure!(found, "no event {kind} about {about:?}");
        Ok(())
    }

    fn status_of(&self, slot: Slot, wanted: SlotStatus) -> Result<()> {
        let found = self.record()?.slot(slot).status();
        anyhow::ensure!(found == wanted, "slot {slot} is {found}");
        Ok(())
    }

    /// Both copies of table and record are valid.
    fn is_mended(&self) -> Result<()> {
        let table = boot_core::gpt::read(&mut self.disk.window(0, self.machine.size))?;
        anyhow::ensure!(table.is_whole(), "the partition table is not whole");
        let plan = boot_core::gpt::plan_growth(&table)?;
        anyhow::ensure!(plan.is_none(), "the partition table is not as it should be");
        let copies = self.state()?.load().copies;
        let valid = |copy: &CopyHealth| matches!(copy, CopyHealth::Valid { .. });
        anyhow::ensure!(copies.iter().all(valid), "a copy of the record is damaged");
        Ok(())
    }

    /// A slot that was good, and that the damage did not touch, is good.
    fn bystanders_are_kept(&self) -> Result<()> {
        let (start, size) = self.machine.place(Label::BootState)?;
        let disk = Disk::new(self.machine.contents.clone());
        let before = BootState::new(disk.window(start, size)).load().record;
        let before = before.context("no valid record")?;
        let after = self.record()?;
        for role in [Role::First, Role::Other] {
            let slot = self.machine.slot(role);
            let hit = matches!(self.cell.region, Region::Slot(it, _) if it == role);
            if before.slot(slot).is_good() && !hit {
                let status = after.slot(slot).status();
                anyhow::ensure!(after.slot(slot).is_good(), "slot {slot} is {status}");
            }
        }
        Ok(())
    }
}
