//! A machine in the middle of its life, on a disk with a partition table: what the damage is done to.
//!
//! It was installed and upgraded by `bootctl`'s own code and started by [`Start`]: slot A holds version 5.0 and slot B
//! 4.0, where 3.0 and 2.0 were before, so that there is an older version of every byte.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use boot_core::layout::{self, Label, Plan, Sizes};
use boot_core::slot_header::clear_header;
use boot_core::store::BootState;
use boot_core::{Digest, Slot, Target, transition};
use bootctl::boot::admission::Admission;
use bootctl::boot::slot_check::SlotDevices;
use bootctl::install::{Options, install};
use bootctl::progress::Progress;
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::LINUX_FS;

use super::start::{Firmware, Machine, Met, Rest};
use super::table::Situation;
use crate::disk::{Contents, Disk, File, Part, Partition};
use crate::images::{Nature, Sample};
use crate::random::Random;
use crate::world::World;

const MIB: u64 = 1 << 20;
/// How much larger the machine's disk is than the image.
const MORE: u64 = 8 * MIB;
/// Blocks of a root: enough that its verity tree has a level above the leaves.
const BLOCKS: usize = 131;
/// Place of the recovery image among the samples: after so many system images, from version 1.0 on.
const RECOVERY: usize = 6;

/// A disk, and what it was before.
pub(super) struct Appliance {
    pub(super) contents: Contents,
    /// Where its partitions lie.
    pub(super) plan: Plan,
    /// Bytes of it.
    pub(super) size: u64,
    /// The same disk two upgrades ago.
    pub(super) older: Contents,
    /// The same disk before its first start, its table being the image's.
    pub(super) image: Contents,
    /// What would start next.
    pub(super) first: Slot,
}

impl Appliance {
    /// The bytes of a partition as `offset` and `size`.
    ///
    /// # Errors
    /// If the layout has none of this name.
    pub(super) fn place(&self, label: Label) -> Result<(u64, u64)> {
        let found = self.plan.partition(label);
        let found = found.with_context(|| format!("no partition {label}"))?;
        Ok((found.start, found.size))
    }
}

/// Images of all versions, and recovery.
///
/// # Errors
/// If one cannot be made.
pub(super) fn world() -> Result<World> {
    let mut samples = vec![];
    for version in 1..=RECOVERY as u64 {
        let name = format!("{version}.0");
        samples.push(Sample::new(&name, version, Nature::Healthy, BLOCKS)?);
    }
    samples.push(Sample::recovery("1.0-recovery", 1)?);
    Ok(World::new(samples))
}

/// The machine of each situation, on disks with sectors of `sector` bytes.
///
/// # Errors
/// If its life does not go as it should.
pub(super) fn lived(world: &World, sector: u32) -> Result<Vec<(Situation, Appliance)>> {
    let (plan, image) = new_disk(world, sector)?;
    let size = plan.disk_size + MORE;
    let mut life = Life {
        world,
        plan,
        size,
        contents: image.clone(),
    };
    life.rests_in(Slot::A)?;
    life.upgrade(2, Slot::B)?;
    life.rests_in(Slot::B)?;
    life.upgrade(3, Slot::A)?;
    life.rests_in(Slot::A)?;
    life.quarantine()?;
    let older = life.contents.clone();
    life.upgrade(4, Slot::B)?;
    life.rests_in(Slot::B)?;
    life.upgrade(5, Slot::A)?;
    life.rests_in(Slot::A)?;
    let both = life.contents.clone();
    life.upgrade(6, Slot::B)?;
    let trial = std::mem::replace(&mut life.contents, both.clone());
    life.empty(Slot::B)?;
    let situations = [
        (Situation::BothGood, both, Slot::A),
        (Situation::OnTrial, trial, Slot::B),
        (Situation::Alone, life.contents, Slot::A),
    ];
    Ok(situations
        .map(|(situation, contents, first)| {
            let appliance = Appliance {
                contents,
                plan: life.plan.clone(),
                size,
                older: older.clone(),
                image: image.clone(),
                first,
            };
            (situation, appliance)
        })
        .into())
}

/// A disk as the image builder's bytes leave it: its table ends where the image ended.
fn new_disk(world: &World, sector: u32) -> Result<(Plan, Contents)> {
    let sizes = Sizes {
        boot: 2 * MIB,
        recovery: 2 * MIB,
        root: MIB,
        state: 2 * MIB,
    };
    let plan = layout::plan(&sizes, sector)?;
    let block_size = match sector {
        512 => LogicalBlockSize::Lb512,
        _ => LogicalBlockSize::Lb4096,
    };
    let file = File::new(Contents::new(sector), plan.disk_size);
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(block_size)
        .create_from_device(file, None)?;
    for it in &plan.partitions {
        let align = Some(MIB / u64::from(sector));
        table.add_partition(it.label.label(), it.size, LINUX_FS, 0, align)?;
    }
    let mut file = table.write()?;
    gpt::mbr::ProtectiveMBR::with_lb_size(u32::MAX).overwrite_lba0(&mut file)?;

    let disk = Disk::new(file.contents);
    let window = |label| {
        let found = plan.partition(label).context("an incomplete layout")?;
        anyhow::Ok(disk.window(found.start, found.size))
    };
    let sample = |index: usize| world.samples.get(index).context("no such image");
    let root = Some(window(Label::RootA)?);
    sample(0)?.write_to(Target::A, window(Label::BootA)?, root)?;
    sample(RECOVERY)?.write_to(Target::Recovery, window(Label::BootR)?, None)?;
    let record = transition::first_image(sample(0)?.image.contents());
    BootState::new(window(Label::BootState)?)
        .commit(&record)
        .map_err(|error| anyhow!("{error}"))?;
    let mut contents = disk.contents();
    // What only firmware and filesystems read: bytes that are to stay as they are.
    for (label, seed) in [(Label::EspA, 1), (Label::EspB, 1), (Label::State, 2)] {
        let start = plan.partition(label).context("an incomplete layout")?.start;
        let bytes = Random::new(seed).bytes(MIB as usize);
        contents.write(Part::Whole, start, &bytes);
    }
    Ok((plan, contents))
}

/// A machine that lives.
struct Life<'w> {
    world: &'w World,
    plan: Plan,
    size: u64,
    contents: Contents,
}

impl Life<'_> {
    fn window(&self, disk: &Disk, label: &str) -> Result<Partition> {
        let found = Label::from_label(label).and_then(|label| self.plan.partition(label));
        let found = found.with_context(|| format!("no partition {label}"))?;
        Ok(disk.window(found.start, found.size))
    }

    fn rests_in(&mut self, slot: Slot) -> Result<()> {
        let disk = Disk::new(self.contents.clone());
        let machine = Machine::new(
            self.world,
            disk.clone(),
            self.size,
            Met::AtStart,
            Firmware::Strict,
        );
        match machine.until_it_rests() {
            Rest::In(target) if target == slot.into() => {}
            other => bail!(
                "it was to rest in slot {slot}: {other:?}\n{}",
                machine.told()
            ),
        }
        self.contents = disk.contents();
        Ok(())
    }

    fn change(
        &mut self,
        change: impl FnOnce(&Self, &Disk, &mut bootctl::boot::control::Control<Partition>) -> Result<()>,
        running: Slot,
    ) -> Result<()> {
        let disk = Disk::new(self.contents.clone());
        let mut control = super::start::control(self.window(&disk, "boot-state")?, running.into());
        change(self, &disk, &mut control)?;
        self.contents = disk.contents();
        Ok(())
    }

    /// Installs `version` into a slot, and activates it.
    fn upgrade(&mut self, version: usize, slot: Slot) -> Result<()> {
        let upgrade =
            |it: &Self, disk: &Disk, control: &mut bootctl::boot::control::Control<Partition>| {
                let sample = it.world.samples.get(version - 1);
                let sample = sample.context("no such image")?;
                let parts = |slot: Slot| {
                    anyhow::Ok(SlotDevices {
                        boot: it.window(disk, slot.label_boot())?,
                        root: it.window(disk, slot.label_root())?,
                    })
                };
                let admission = Admission::from(it.world.trust.clone());
                let options = Options {
                    admission: &admission,
                    slot,
                    force: false,
                    scratch: std::env::temp_dir(),
                    unwanted: &[],
                };
                install(
                    control,
                    &mut parts(slot)?,
                    Some(&mut parts(slot.other())?),
                    &mut crate::images::InMemory(&sample.bundle),
                    &options,
                    &Progress::silent(),
                )?;
                control.activate(slot)?;
                Ok(())
            };
        self.change(upgrade, slot.other())
    }

    /// Something is in quarantine, so that its ring is not empty.
    fn quarantine(&mut self) -> Result<()> {
        let quarantine =
            |_: &Self, _: &Disk, control: &mut bootctl::boot::control::Control<Partition>| {
                control.quarantine(&Digest([0xee; 32]), "the node is not Ready")?;
                Ok(())
            };
        self.change(quarantine, Slot::A)
    }

    /// An installation that ended after its first step: the slot has no header, and the record calls it empty.
    fn empty(&mut self, slot: Slot) -> Result<()> {
        let empty =
            |it: &Self, disk: &Disk, control: &mut bootctl::boot::control::Control<Partition>| {
                clear_header(&mut it.window(disk, slot.label_boot())?)?;
                let record = control.change("emptying a slot", |record| {
                    transition::clear(record, slot, slot.other().into())
                })?;
                ensure!(!record.slot(slot).is_startable());
                Ok(())
            };
        self.change(empty, slot.other())
    }
}
