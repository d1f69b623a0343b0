//! A machine with one disk: starts it as the field does, with the loader's own decision and `bootctl`'s own changes,
//! until it stands in a slot that stays.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use boot_core::boot::{Boot, Floors, Platform};
use boot_core::record::Record;
use boot_core::select::Why;
use boot_core::slot_header::{SlotHeader, read_slot};
use boot_core::store::BootState;
use boot_core::transition::TRIES;
use boot_core::trust::Trust;
use boot_core::verify::{Expect, Rejected, Verified, verify_slot};
use boot_core::{Device as _, Digest, Nonce, SecurityVersion, Slot, Target};
use bootctl::control::{Context, Control};
use bootctl::fallback;
use bootctl::settle::{Booted, Settled, Verdict};

use crate::disk::{Contents, Disk, Part, Partition};
use crate::images::{Nature, Sample};
use crate::invariants::{Invariant, Violation};
use crate::wrong::Wrong;

/// More starts than any machine may need to come to rest.
const STARTS: usize = 16;

/// What all machines share: whom they trust, which images there are, what was verified before.
pub(crate) struct World {
    /// Whose images start.
    pub(crate) trust: Trust,
    /// The images.
    pub(crate) samples: Vec<Sample>,
    /// What is wrong with its machines.
    pub(crate) wrong: Option<Wrong>,
    verified: RefCell<HashMap<u64, Result<Verified, Rejected>>>,
}

impl World {
    /// With these images.
    pub(crate) fn new(samples: Vec<Sample>) -> Self {
        Self {
            trust: boot_core::test_support::trust(),
            samples,
            wrong: None,
            verified: RefCell::default(),
        }
    }

    /// The image with this manifest.
    pub(crate) fn sample(&self, digest: &Digest) -> Option<&Sample> {
        self.samples
            .iter()
            .find(|sample| sample.digest() == *digest)
    }

    fn verify(
        &self,
        header: &SlotHeader,
        envelope: &[u8],
        keyring: &[u8],
        expect: &Expect,
    ) -> Result<Verified, Rejected> {
        let mut hasher = DefaultHasher::new();
        (header.encode(), envelope, keyring).hash(&mut hasher);
        (expect.target, expect.floor.0).hash(&mut hasher);
        let verify = || verify_slot(&self.trust, header, envelope, keyring, expect);
        let mut verified = self.verified.borrow_mut();
        verified
            .entry(hasher.finish())
            .or_insert_with(verify)
            .clone()
    }

    /// What verifies in a slot, its UKI included, as the loader sees it without asking the record.
    pub(crate) fn holds(&self, disk: &Disk, slot: Slot) -> Option<&Sample> {
        let mut boot = disk.partition(Part::Boot(slot.into()));
        let parts = read_slot(&mut boot).ok()?;
        let expect = Expect {
            target: slot.into(),
            floor: SecurityVersion(0),
            uki: None,
        };
        let verified = self
            .verify(&parts.header, &parts.envelope, &parts.keyring, &expect)
            .ok()?;
        let header = parts.header;
        let uki = fallback::digest_at(&mut boot, header.uki_offset, header.uki_length).ok()?;
        verified.check_uki(&uki).ok()?;
        self.sample(&verified.digest)
    }
}

/// What the loader needs of the machine.
pub(crate) struct Firmware<'w> {
    /// Whom it trusts.
    pub(crate) world: &'w World,
    /// `boot-state`, if it is there.
    pub(crate) state: Option<Partition>,
    /// `boot-a`, `boot-b`, `boot-r`, as far as they are there.
    pub(crate) slots: [Option<Partition>; 3],
    /// For this start.
    pub(crate) nonce: Nonce,
    /// What it says, where somebody listens.
    pub(crate) told: Option<&'w RefCell<Vec<String>>>,
}

impl Platform for Firmware<'_> {
    type Device = Partition;
    type Image = ();

    fn boot_state(&mut self) -> Option<&mut Partition> {
        self.state.as_mut()
    }

    fn slot(&mut self, target: Target) -> Option<&mut Partition> {
        let index = Target::ALL.iter().position(|it| *it == target)?;
        self.slots.get_mut(index)?.as_mut()
    }

    fn load_uki(
        &mut self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<((), Digest), String> {
        let device = self.slot(target).ok_or("no such partition")?;
        if offset.saturating_add(length.next_multiple_of(4096)) > device.size() {
            return Err("past the end of the partition".into());
        }
        let digest = fallback::digest_at(device, offset, length);
        Ok(((), digest.map_err(|error| error.to_string())?))
    }

    fn nonce(&mut self) -> Nonce {
        self.nonce
    }

    fn log(&mut self, line: fmt::Arguments<'_>) {
        if let Some(told) = self.told {
            told.borrow_mut().push(format!("loader: {line}"));
        }
    }

    fn now(&mut self) -> Option<i64> {
        None
    }

    fn firmware_floors(&mut self) -> Option<Floors> {
        None
    }

    fn raise_firmware_floors(&mut self, _: Floors) -> Result<(), String> {
        Err("Secure Boot is off".into())
    }

    fn verify(
        &mut self,
        _: &Trust,
        header: &SlotHeader,
        envelope: &[u8],
        keyring: &[u8],
        expect: &Expect,
    ) -> Result<Verified, Rejected> {
        self.world.verify(header, envelope, keyring, expect)
    }
}

/// How a start ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The machine stays in this slot.
    Rests(Slot),
    /// It starts again.
    Restarts,
}

/// A machine over a disk.
pub(crate) struct Machine<'w> {
    world: &'w World,
    disk: Disk,
    /// What it says, where somebody listens.
    told: Option<&'w RefCell<Vec<String>>>,
}

impl<'w> Machine<'w> {
    /// Over this disk.
    pub(crate) fn new(
        world: &'w World,
        disk: Disk,
        told: Option<&'w RefCell<Vec<String>>>,
    ) -> Self {
        Self { world, disk, told }
    }

    fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(told) = self.told {
            told.borrow_mut().push(line());
        }
    }

    /// `bootctl`'s hold on the boot state while `booted` runs.
    pub(crate) fn control(&self, booted: Target) -> Control<Partition> {
        let context = Context {
            booted,
            nonce: Nonce::ZERO,
            now: || 1_800_000_000,
        };
        Control::new(self.disk.partition(Part::State), context)
    }

    /// Starts the machine until it rests in a slot; which one.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn until_it_rests(&self) -> Result<Slot, Violation> {
        for _ in 0..STARTS {
            if let Ended::Rests(slot) = self.start(true)? {
                return Ok(slot);
            }
        }
        Err(Invariant::NoLoop.broken(format!("{STARTS} starts, and no rest")))
    }

    /// One start: the loader, the agent, and unless the plug is pulled (`up` is false) userland up to its verdict.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub(crate) fn start(&self, up: bool) -> Result<Ended, Violation> {
        let before = self.disk.record();
        let late = self.world.wrong == Some(Wrong::CommitAfterStart);
        let on_disk = late.then(|| self.disk.contents());
        let (target, digest, why, recorded) = self.load()?;
        let seen = on_disk.map_or_else(|| self.disk.clone(), Disk::new);
        let Some(slot) = target.slot() else {
            return Err(
                Invariant::SomethingStarts.broken("recovery starts, beside a slot that verifies")
            );
        };
        self.check_start(&seen, before.as_ref(), slot, &digest, why, recorded)?;
        let Some(sample) = self.world.sample(&digest) else {
            return Err(Invariant::NothingHalfWritten.broken(format!("slot {slot} is no image")));
        };
        if !sample.is_whole(&self.disk.contents(), slot) {
            return Err(Invariant::NothingHalfWritten.broken(format!(
                "slot {slot} starts with a part of its image missing"
            )));
        }
        if !up || sample.nature == Nature::Silent {
            self.tell(|| format!("slot {slot}: userland does not come up"));
            return Ok(Ended::Restarts);
        }
        self.serve(slot, sample)
    }

    /// The loader's part: what it starts, why, and whether it wrote that down.
    fn load(&self) -> Result<(Target, Digest, Why, bool), Violation> {
        let fingerprint = self.disk.contents().fingerprint();
        let mut nonce = Nonce([1; 16]);
        nonce.0[..8].copy_from_slice(&fingerprint.to_le_bytes());
        let mut firmware = Firmware {
            world: self.world,
            state: Some(self.disk.partition(Part::State)),
            slots: Target::ALL.map(|target| Some(self.disk.partition(Part::Boot(target)))),
            nonce,
            told: self.told,
        };
        let chosen = Boot::new(&self.world.trust)
            .next(&mut firmware)
            .ok_or_else(|| {
                Invariant::SomethingStarts.broken("the loader finds nothing to start")
            })?;
        Ok((
            chosen.target,
            chosen.verified.digest,
            chosen.why,
            chosen.recorded,
        ))
    }

    /// Rule 2, as the disk has it at the moment of the start.
    fn check_start(
        &self,
        disk: &Disk,
        before: Option<&Record>,
        slot: Slot,
        digest: &Digest,
        why: Why,
        recorded: bool,
    ) -> Result<(), Violation> {
        let Some(now) = disk.record().filter(|_| recorded && disk.is_flushed()) else {
            return Err(Invariant::Decrement
                .broken(format!("slot {slot} starts, and it is not on the disk")));
        };
        let entry = now.slot(slot);
        let counted = match before.map(|record| record.slot(slot)) {
            Some(old) if old.digest == *digest && !old.is_good() => entry.tries < old.tries,
            Some(old) if old.digest == *digest => entry.failure_streak > old.failure_streak,
            _ => true,
        };
        if now.last_tried != Some(slot.into()) || !(counted || why == Why::LastResort) {
            return Err(Invariant::Decrement.broken(format!(
                "slot {slot} starts ({why}) with {} tries left on the disk",
                entry.tries
            )));
        }
        Ok(())
    }

    /// `bootctl serve`, from its beginning to what its verdict comes to.
    fn serve(&self, slot: Slot, sample: &Sample) -> Result<Ended, Violation> {
        let mut control = self.control(slot.into());
        let failed = |e: bootctl::failure::Failure| Invariant::Works.broken(e);
        let begun = control.begin(slot).map_err(failed)?;
        if self.world.wrong == Some(Wrong::Refills) {
            let refilled = control.change("refilling", |record| {
                let mut next = record.clone();
                next.slot_mut(slot).tries = TRIES;
                Ok(next)
            });
            refilled.map_err(failed)?;
        }
        let overdue = begun.overdue.map_err(failed)?;
        let verdict = match (overdue, sample.nature) {
            _ if self.world.wrong == Some(Wrong::AlwaysHealthy) => Verdict::Healthy,
            (Some(reason), _) => Verdict::Unhealthy(reason),
            (None, Nature::Healthy) => Verdict::Healthy,
            (None, _) => Verdict::Unhealthy("the node is not Ready".into()),
        };
        control.clear_streak(slot).map_err(failed)?;
        let booted = Booted {
            slot,
            digest: Some(sample.digest()),
            on_trial: begun.on_trial,
            root_damaged: false,
        };
        let stays = |record: &Record| {
            let other = slot.other();
            let mut boot = self.disk.partition(Part::Boot(other.into()));
            let mut verify =
                || fallback::verify(&mut boot, other.into(), &self.world.trust, record);
            let starts = record.slot(other).is_startable() && verify().is_ok();
            (!starts).then(|| "there is no other slot".to_owned())
        };
        let settled = control
            .settle(&booted, &verdict, "healthy", stays)
            .map_err(failed)?;
        self.tell(|| format!("slot {slot}: {verdict:?}: {settled:?}"));
        Ok(match settled {
            Settled::Healthy | Settled::Noted | Settled::Stays(_) => Ended::Rests(slot),
            Settled::GoingBack => Ended::Restarts,
        })
    }
}

/// A disk with an image in slot A, as an image builder makes it.
///
/// # Errors
/// If the image does not fit.
pub(crate) fn new_disk(sector: u32, first: &Sample) -> anyhow::Result<Contents> {
    let disk = Disk::new(Contents::new(sector));
    let (boot, root) = (Part::Boot(Target::A), Part::Root(Slot::A));
    first.write_to(Target::A, disk.partition(boot), Some(disk.partition(root)))?;
    let record = boot_core::transition::first_image(first.image.contents());
    BootState::new(disk.partition(Part::State))
        .commit(&record)
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(disk.contents())
}
