//! What a machine is made of that is not on its disk: whom it trusts, and what firmware does for the loader.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use boot_core::boot::Platform;
use boot_core::boot::variable::{ATTRIBUTES, Answer, FloorVariable, Kept, Write};
use boot_core::floor::Level;
use boot_core::hashed;
use boot_core::slot_header::{SlotParts, read_header};
use boot_core::trust::Trust;
use boot_core::verify::{Expect, Rejected, Verified, Verify};
use boot_core::{Device as _, Digest, KeyringSerial, Nonce, Target};

use crate::disk::Partition;
use crate::histories::Quirk;
use crate::images::Sample;
use crate::nvram::Nvram;
use crate::sabotage::Sabotage;

/// What all machines share: whom they trust, which images there are, what was verified before.
pub(crate) struct World {
    /// Whose images start.
    pub(crate) trust: Trust,
    /// The images.
    pub(crate) samples: Vec<Sample>,
    /// How its machines are sabotaged.
    pub(crate) sabotage: Option<Sabotage>,
    verified: RefCell<HashMap<u64, Result<Verified, Rejected>>>,
}

impl World {
    /// With these images.
    pub(crate) fn new(samples: Vec<Sample>) -> Self {
        Self {
            trust: boot_core::test_support::trust(),
            samples,
            sabotage: None,
            verified: RefCell::default(),
        }
    }

    /// The image with this manifest.
    pub(crate) fn sample(&self, digest: &Digest) -> Option<&Sample> {
        self.samples
            .iter()
            .find(|sample| sample.digest() == *digest)
    }
}

/// The loader's verifier; what it said before of the same is remembered.
impl Verify for World {
    fn verify(&self, parts: &SlotParts, expect: &Expect) -> Result<Verified, Rejected> {
        let mut hasher = DefaultHasher::new();
        (parts.header.encode(), &parts.envelope, &parts.keyring).hash(&mut hasher);
        let mut expect = *expect;
        match (self.sabotage, expect.target) {
            (Some(Sabotage::KeyringBelieved), _) => expect.floor.keyring_serial = KeyringSerial(0),
            (Some(Sabotage::RecoveryOfAnyAge), Target::Recovery) => {
                expect.floor = Level::default();
            }
            _ => {}
        }
        (expect.target, expect.floor).hash(&mut hasher);
        let verify = || self.trust.verify(parts, &expect);
        let mut verified = self.verified.borrow_mut();
        verified
            .entry(hasher.finish())
            .or_insert_with(verify)
            .clone()
    }
}

/// What the loader needs of the machine.
pub(crate) struct Firmware<'w> {
    /// Whom it trusts.
    pub(crate) world: &'w World,
    /// `boot-state`, if it is there.
    pub(crate) state: Option<Partition>,
    /// What it keeps.
    pub(crate) nvram: Nvram,
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
        let believes = self.world.sabotage == Some(Sabotage::HeaderBelieved);
        let device = self.slot(target).ok_or("no such partition")?;
        if believes && let Ok(header) = read_header(device) {
            let sample = self.world.sample(&header.manifest_digest);
            let uki = sample.and_then(|sample| sample.image.manifest.uki.as_ref());
            return Ok(((), uki.ok_or("no such image")?.digest));
        }
        if offset.saturating_add(length.next_multiple_of(4096)) > device.size() {
            return Err("past the end of the partition".into());
        }
        let digest = hashed::digest(device, offset, length);
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

    fn secure_boot(&mut self) -> bool {
        let is_asked = self.world.sabotage != Some(Sabotage::FirmwareNotAsked);
        is_asked && self.nvram.has(Quirk::SecureBoot)
    }

    fn floor_variable(&mut self, variable: FloorVariable) -> Answer {
        let answer = self.nvram.read(variable);
        let is_foreign = matches!(answer.floor(), Kept::Foreign(_));
        if is_foreign && self.world.sabotage == Some(Sabotage::ForeignIsZero) {
            return Answer::Value {
                bytes: vec![0; 8],
                attributes: ATTRIBUTES,
            };
        }
        answer
    }

    fn write_floor(&mut self, variable: FloorVariable, write: Write) -> Result<(), String> {
        self.nvram.write(variable, write)
    }
}
