//! A machine with one disk, in memory.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::fmt;

use super::{Image, MemoryDevice};
use crate::{
    boot::{
        Boot, Chosen, Platform,
        variable::{ATTRIBUTES, Answer, FloorVariable, Kept, Write},
    },
    device::Device,
    floor::Floors,
    record::Record,
    slot::Target,
    store::{BootState, COPIES, PARTITION_SIZE},
    trust::Trust,
    types::{Digest, Nonce},
};

/// What the loader sees of a machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The `boot-state` partition.
    pub boot_state: Option<MemoryDevice>,
    /// `boot-a`, `boot-b`, `boot-r`.
    pub slots: [Option<MemoryDevice>; 3],
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
    /// What firmware answers for each floor, in the order of [`FloorVariable::ALL`].
    pub variables: [Answer; 4],
    /// What its clock says, if it has one.
    pub now: Option<i64>,
    /// The next nonce is made of this, and it rises.
    pub nonces: u64,
    /// What was logged.
    pub log: Vec<String>,
    /// How often something was loaded, and the record as it was on the disk at that moment.
    pub loads: Vec<(Target, Option<Record>)>,
}

impl Machine {
    /// With these images in A, B and recovery, no record, and blocks of `block_size`.
    pub fn new(block_size: u32, images: [Option<&Image>; 3]) -> Self {
        let [a, b, recovery] = images;
        let slot = |target: Target, image: Option<&Image>| {
            Some(image.map_or_else(
                || MemoryDevice::new(Image::PARTITION_SIZE, block_size),
                |image| image.device(target, block_size),
            ))
        };
        Self {
            boot_state: Some(MemoryDevice::new(PARTITION_SIZE, block_size)),
            slots: [
                slot(Target::A, a),
                slot(Target::B, b),
                slot(Target::Recovery, recovery),
            ],
            secure_boot: false,
            variables: [const { Answer::Absent }; 4],
            now: None,
            nonces: 1,
            log: Vec::new(),
            loads: Vec::new(),
        }
    }

    /// The newest record on the disk.
    pub fn record(&mut self) -> Option<Record> {
        BootState::new(self.boot_state.as_mut()?).load().record
    }

    /// Puts `record` on the disk as the only valid copy.
    pub fn set_record(&mut self, record: &Record) {
        let device = self.boot_state.as_mut().unwrap();
        let block = vec![0; device.block_size as usize];
        for offset in COPIES {
            device.write_at(offset, &block).unwrap();
        }
        let mut block = block;
        block[..record.encode().len()].copy_from_slice(&record.encode());
        device.write_at(COPIES[0], &block).unwrap();
        device.writes.clear();
        device.flushes = 0;
    }

    /// Commits what `change` makes of the newest record.
    pub fn update(&mut self, change: impl FnOnce(&Record) -> Record) -> Record {
        let mut store = BootState::new(self.boot_state.as_mut().unwrap());
        let record = store.load().record.unwrap();
        store.commit(&change(&record)).unwrap()
    }

    /// One start: the first thing that is chosen.
    pub fn start(&mut self, trust: &Trust) -> Option<Chosen<Vec<u8>>> {
        Boot::new(trust).next(self)
    }

    /// Has Secure Boot on, and firmware keep these floors.
    pub fn set_floors(&mut self, floors: &Floors) {
        self.secure_boot = true;
        for variable in FloorVariable::ALL {
            let floor = variable.of(floors);
            let replaces = false;
            self.write_floor(variable, Write { replaces, floor })
                .unwrap();
        }
    }

    /// The floors that firmware keeps; 0 where it keeps none.
    pub fn floors(&self) -> Floors {
        let mut floors = Floors::default();
        for (variable, answer) in FloorVariable::ALL.into_iter().zip(&self.variables) {
            if let Kept::Floor(floor) = answer.floor() {
                variable.put(&mut floors, floor);
            }
        }
        floors
    }

    fn index(target: Target) -> usize {
        usize::from(target.code() - 1)
    }

    /// The partition of `target`.
    pub fn slot_mut(&mut self, target: Target) -> &mut Option<MemoryDevice> {
        &mut self.slots[Self::index(target)]
    }
}

impl Platform for Machine {
    type Device = MemoryDevice;
    type Image = Vec<u8>;

    fn boot_state(&mut self) -> Option<&mut MemoryDevice> {
        self.boot_state.as_mut()
    }

    fn slot(&mut self, target: Target) -> Option<&mut MemoryDevice> {
        self.slots[Self::index(target)].as_mut()
    }

    fn load_uki(
        &mut self,
        target: Target,
        offset: u64,
        length: u64,
    ) -> Result<(Vec<u8>, Digest), String> {
        let record = self.record();
        self.loads.push((target, record));
        let device = self.slots[Self::index(target)].as_mut().unwrap();
        let mut uki = vec![0; usize::try_from(length).unwrap().next_multiple_of(4096)];
        device
            .read_at(offset, &mut uki)
            .map_err(|error| error.to_string())?;
        uki.truncate(usize::try_from(length).unwrap());
        let digest = Digest::of(&uki);
        Ok((uki, digest))
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = Nonce::ZERO;
        nonce.0[..8].copy_from_slice(&self.nonces.to_le_bytes());
        self.nonces += 1;
        nonce
    }

    fn now(&mut self) -> Option<i64> {
        self.now
    }

    fn log(&mut self, line: fmt::Arguments<'_>) {
        self.log.push(format!("{line}"));
    }

    fn secure_boot(&mut self) -> bool {
        self.secure_boot
    }

    fn floor_variable(&mut self, variable: FloorVariable) -> Answer {
        self.variables[place(variable)].clone()
    }

    fn write_floor(&mut self, variable: FloorVariable, write: Write) -> Result<(), String> {
        self.variables[place(variable)] = Answer::Value {
            bytes: write.floor.to_le_bytes().into(),
            attributes: ATTRIBUTES,
        };
        Ok(())
    }
}

fn place(variable: FloorVariable) -> usize {
    FloorVariable::ALL
        .iter()
        .position(|it| *it == variable)
        .unwrap()
}
