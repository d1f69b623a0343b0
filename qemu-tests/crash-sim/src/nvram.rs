//! Firmware's variables, as far as the loader asks for them: beside the disk, and no part of it.
//!
//! A block says what is special about the machine, and one for each floor what is in its variable. Firmware writes a variable
//! whole or not at all, before it returns, so each write is followed by a flush and is never torn.

use boot_core::Device as _;
use boot_core::boot::variable::{ATTRIBUTES, Answer, FloorVariable, Kept, Write};
use boot_core::floor::Floors;

use crate::disk::{Disk, Part, Partition, Unreadable};
use crate::histories::Quirk;

/// Bytes from one to the next.
const STRIDE: u64 = 4096;
/// Bytes of all of them.
pub(crate) const SIZE: u64 = 5 * STRIDE;

/// Those of one machine.
pub(crate) struct Nvram(Partition);

impl Nvram {
    /// Beside this disk.
    pub(crate) fn of(disk: &Disk) -> Self {
        Self(disk.partition(Part::Firmware))
    }

    /// Makes the machine special.
    pub(crate) fn give(&mut self, quirk: Quirk) -> Result<(), Unreadable> {
        self.put(0, &[number(quirk)])
    }

    /// Whether it is special in this way.
    pub(crate) fn has(&mut self, quirk: Quirk) -> bool {
        self.get(0).first() == Some(&number(quirk))
    }

    /// What firmware answers.
    pub(crate) fn read(&mut self, variable: FloorVariable) -> Answer {
        let block = self.get(place(variable));
        let [1, length, attributes, bytes @ ..] = block.as_slice() else {
            return Answer::Absent;
        };
        match bytes.get(..usize::from(*length)) {
            Some(bytes) if bytes.len() <= 8 => Answer::Value {
                bytes: bytes.into(),
                attributes: u32::from(*attributes),
            },
            _ => Answer::TooLong,
        }
    }

    /// Writes it, if firmware would: attributes of what is there cannot be changed.
    pub(crate) fn write(&mut self, variable: FloorVariable, write: Write) -> Result<(), String> {
        let is_ours = match self.read(variable) {
            Answer::Absent => true,
            Answer::Value { attributes, .. } => attributes == ATTRIBUTES,
            Answer::TooLong | Answer::Error(_) => false,
        };
        if !is_ours && !write.replaces {
            return Err("INVALID_PARAMETER".into());
        }
        self.set(variable, &write.floor.to_le_bytes(), ATTRIBUTES as u8)
            .map_err(|error| error.to_string())
    }

    /// Puts `bytes` into it, whoever it is that does.
    pub(crate) fn set(
        &mut self,
        variable: FloorVariable,
        bytes: &[u8],
        attributes: u8,
    ) -> Result<(), Unreadable> {
        let block = [&[1, bytes.len() as u8, attributes], bytes].concat();
        self.put(place(variable), &block)
    }

    /// The floors in them; none where one is no floor.
    pub(crate) fn floors(&mut self) -> Option<Floors> {
        let mut floors = Floors::default();
        for variable in FloorVariable::ALL {
            let Kept::Floor(floor) = self.read(variable).floor() else {
                return None;
            };
            variable.put(&mut floors, floor);
        }
        Some(floors)
    }

    fn get(&mut self, place: u64) -> Vec<u8> {
        let mut block = vec![0; self.0.block_size() as usize];
        let read = self.0.read_at(place * STRIDE, &mut block);
        read.map(|()| block).unwrap_or_default()
    }

    fn put(&mut self, place: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut block = bytes.to_vec();
        block.resize(self.0.block_size() as usize, 0);
        self.0.write_at(place * STRIDE, &block)?;
        self.0.flush()
    }
}

fn number(quirk: Quirk) -> u8 {
    match quirk {
        Quirk::SecureBoot => 1,
        Quirk::TimerTooEarly => 2,
    }
}

fn place(variable: FloorVariable) -> u64 {
    let before = FloorVariable::ALL.iter().take_while(|it| **it != variable);
    1 + before.count() as u64
}
