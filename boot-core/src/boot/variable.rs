//! Floors in firmware's variables, under Secure Boot: what an answer of firmware's means, and what is written then.
//!
//! The loader asks and writes, and decides nothing. Only boot services see these variables, so the running system can
//! neither read nor write one that is there: one is made of each at the first start under Secure Boot, if only of 0.
//! Before that the running system may make one of the same name, of whatever length, and with attributes of its own:
//!
//! | firmware answers | it counts as | what is done |
//! | --- | --- | --- |
//! | eight bytes, attributes as ours | that floor | written if it is to rise |
//! | there is none | 0 | written, 0 included |
//! | another length, or other attributes | not known: somebody else made it | deleted, then written |
//! | an error | not known | nothing: what is there may be higher |
//!
//! Where a floor is not known the record's counts, and is not given up as damage while anything else starts.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    floor::Floors,
    slot::Target,
    types::{KeyringSerial, SecurityVersion},
};

/// EFI_VARIABLE_NON_VOLATILE (UEFI 2.10, section 8.2).
const NON_VOLATILE: u32 = 1;
/// EFI_VARIABLE_BOOTSERVICE_ACCESS.
const BOOT_SERVICES: u32 = 2;
/// EFI_VARIABLE_RUNTIME_ACCESS.
const RUNTIME: u32 = 4;

/// Attributes of the variables that floors are in: the running system neither reads nor writes them.
pub const ATTRIBUTES: u32 = NON_VOLATILE | BOOT_SERVICES;

/// What firmware answers when it is asked for a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is none.
    Absent,
    /// There is one.
    Value {
        /// What is in it.
        bytes: Vec<u8>,
        /// Its attributes.
        attributes: u32,
    },
    /// There is one that is longer than what was asked for.
    TooLong,
    /// It could not be read; what firmware said.
    Error(String),
}

/// A floor that firmware keeps in a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloorVariable {
    /// The security version of slots A and B.
    System,
    /// The keyring serial of slots A and B.
    SystemKeyring,
    /// The security version of recovery.
    Recovery,
    /// The keyring serial of recovery.
    RecoveryKeyring,
}

/// What a variable says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// This floor.
    Floor(u64),
    /// Nothing: there is none yet.
    Nothing,
    /// Nothing that the loader wrote; why it is none.
    Foreign(String),
    /// Not known; why.
    Unknown(String),
}

/// What is done to a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whether what is there is deleted first, since attributes cannot be changed.
    pub replaces: bool,
    /// What is written.
    pub floor: u64,
}

impl FloorVariable {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::System,
        Self::SystemKeyring,
        Self::Recovery,
        Self::RecoveryKeyring,
    ];

    /// Its name; its vendor is [`layout::VENDOR`](crate::layout::VENDOR).
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "SternpostFloor",
            Self::SystemKeyring => "SternpostKeyringFloor",
            Self::Recovery => "SternpostRecoveryFloor",
            Self::RecoveryKeyring => "SternpostRecoveryKeyringFloor",
        }
    }

    /// What it is the floor of.
    pub(super) const fn guards(self, target: Target) -> bool {
        match self {
            Self::System | Self::SystemKeyring => target.slot().is_some(),
            Self::Recovery | Self::RecoveryKeyring => target.slot().is_none(),
        }
    }

    /// What of `floors` is in it.
    pub fn of(self, floors: &Floors) -> u64 {
        match self {
            Self::System => floors.system.security_version.0,
            Self::SystemKeyring => floors.system.keyring_serial.0,
            Self::Recovery => floors.recovery.security_version.0,
            Self::RecoveryKeyring => floors.recovery.keyring_serial.0,
        }
    }

    /// Puts what is in it into `floors`.
    pub fn put(self, floors: &mut Floors, value: u64) {
        match self {
            Self::System => floors.system.security_version = SecurityVersion(value),
            Self::SystemKeyring => floors.system.keyring_serial = KeyringSerial(value),
            Self::Recovery => floors.recovery.security_version = SecurityVersion(value),
            Self::RecoveryKeyring => floors.recovery.keyring_serial = KeyringSerial(value),
        }
    }
}

impl Answer {
    /// What it means, of a floor's variable.
    pub fn floor(&self) -> Kept {
        match self {
            Self::Absent => Kept::Nothing,
            Self::Error(error) => Kept::Unknown(error.clone()),
            Self::TooLong => Kept::Foreign("it has more than 8 bytes".to_string()),
            Self::Value { attributes, .. } if *attributes != ATTRIBUTES => Kept::Foreign(format!(
                "it has attributes {attributes:#x}, not {ATTRIBUTES:#x}"
            )),
            Self::Value { bytes, .. } => match <[u8; 8]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Kept::Floor(u64::from_le_bytes(bytes)),
                Err(_) => Kept::Foreign(format!("it has {} bytes, not 8", bytes.len())),
            },
        }
    }

    /// Whether Secure Boot is on, by the global variable `SecureBoot`: unless firmware says clearly that it is off, or
    /// knows of none. What it says otherwise cannot be firmware's, or says nothing.
    pub fn is_secure_boot(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Value { bytes, attributes } => {
                bytes != &[0] || *attributes != BOOT_SERVICES | RUNTIME
            }
            Self::TooLong | Self::Error(_) => true,
        }
    }
}

impl Kept {
    /// What is written, where the floor is to be `wanted`. Never lowers one.
    pub fn write(&self, wanted: u64) -> Option<Write> {
        let write = |replaces| Write {
            replaces,
            floor: wanted,
        };
        match self {
            Self::Floor(floor) => (wanted > *floor).then_some(write(false)),
            Self::Nothing => Some(write(false)),
            Self::Foreign(_) => Some(write(true)),
            Self::Unknown(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn value(bytes: &[u8], attributes: u32) -> Answer {
        Answer::Value {
            bytes: bytes.into(),
            attributes,
        }
    }

    #[test]
    fn only_eight_bytes_that_the_loader_wrote_are_a_floor() {
        let five = 5_u64.to_le_bytes();
        let error = Answer::Error("DEVICE_ERROR".into());
        let foreign = |answer: &Answer| matches!(answer.floor(), Kept::Foreign(_));
        assert_eq!(value(&five, ATTRIBUTES).floor(), Kept::Floor(5));
        assert_eq!(Answer::Absent.floor(), Kept::Nothing);
        assert_eq!(error.floor(), Kept::Unknown("DEVICE_ERROR".into()));
        assert!(foreign(&Answer::TooLong));
        for length in (0..8).chain([9, 16]) {
            assert!(foreign(&value(&vec![0; length], ATTRIBUTES)), "{length}");
        }
        for attributes in (0..16).chain([u32::MAX]).filter(|it| *it != ATTRIBUTES) {
            assert!(foreign(&value(&five, attributes)), "{attributes}");
        }
    }

    #[test]
    fn a_variable_is_made_once_replaced_if_foreign_and_never_lowered() {
        let write = |replaces, floor| Some(Write { replaces, floor });
        let foreign = || Kept::Foreign("it has 16 bytes".into());
        let unknown = || Kept::Unknown("DEVICE_ERROR".into());
        for (kept, wanted, expected) in [
            (Kept::Nothing, 0, write(false, 0)),
            (Kept::Nothing, 4, write(false, 4)),
            (Kept::Floor(0), 0, None),
            (Kept::Floor(3), 4, write(false, 4)),
            (Kept::Floor(4), 4, None),
            (Kept::Floor(5), 4, None),
            (foreign(), 0, write(true, 0)),
            (foreign(), 4, write(true, 4)),
            (unknown(), 0, None),
            (unknown(), u64::MAX, None),
        ] {
            assert_eq!(kept.write(wanted), expected, "{kept:?}, {wanted}");
        }
    }

    #[test]
    fn secure_boot_is_off_only_where_firmware_says_so() {
        let firmwares = BOOT_SERVICES | RUNTIME;
        for (answer, on) in [
            (Answer::Absent, false),
            (value(&[0], firmwares), false),
            (value(&[1], firmwares), true),
            (value(&[2], firmwares), true),
            (value(&[], firmwares), true),
            (value(&[0, 0], firmwares), true),
            (value(&[0], firmwares | NON_VOLATILE), true),
            (Answer::TooLong, true),
            (Answer::Error("DEVICE_ERROR".into()), true),
        ] {
            assert_eq!(answer.is_secure_boot(), on, "{answer:?}");
        }
    }

    #[test]
    fn each_variable_holds_a_number_of_its_own() {
        let mut floors = Floors::default();
        for (variable, value) in FloorVariable::ALL.into_iter().zip(1..) {
            variable.put(&mut floors, value);
        }
        for (variable, value) in FloorVariable::ALL.into_iter().zip(1..) {
            assert_eq!(variable.of(&floors), value, "{}", variable.name());
        }
    }
}
