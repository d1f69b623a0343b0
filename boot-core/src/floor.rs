//! Floors: how new an image has to be, so that none with a known hole and none under withdrawn keys comes back.
//!
//! What an image has and what a machine asks for are of one type, [`Level`], and here alone they are compared: whether
//! an image may start ([`Level::admits`]), whether it may be installed ([`Level::admits_new`]), and how far a floor
//! rises ([`Level::raised_to`]). Loader, agent, `bootctl` and `imager` ask here.
//!
//! A machine has two floors, one for slots A and B and one for recovery, so that neither can take away what the other
//! falls back to. The record keeps both ([`Record::floors`](crate::record::Record::floors)), under Secure Boot firmware
//! does as well ([`boot::variable`](crate::boot::variable)), and what counts is the higher of each
//! ([`Floors::max`]).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    slot::Target,
    types::{KeyringSerial, SecurityVersion},
};

/// By how much at most an image may be above a floor to be installed, or to raise it.
///
/// Whoever has a signing key chooses the security version, and a floor never falls: one image of `u64::MAX` would lock
/// out everything that its vendor makes afterwards. So an image that asks for more raises nothing. With this bound the
/// vendor answers a floor that was driven up with an image of a higher version, and driving a floor to where no number
/// is left takes 2^32 images, each started. Machines whose floor was not driven up take that answer only where it is in
/// reach of theirs. It is wide enough for those who count by days (20261201) or seconds; the first image of a machine has
/// to be within it, since a new floor is 0, or nothing later is. Keyring serials have the same bound: of root keys that
/// were replaced since, the loader still believes the links.
pub const STEP: u64 = 1 << 32;

/// How new an image is; or, as a floor, has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Level {
    /// Security version of its manifest.
    pub security_version: SecurityVersion,
    /// Serial of the keyring that its manifest was signed under.
    pub keyring_serial: KeyringSerial,
}

/// The floors of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Floors {
    /// Of slots A and B.
    pub system: Level,
    /// Of recovery.
    pub recovery: Level,
}

/// Why an image does not start, or is not installed, on a machine with this floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Older than what may be fallen back to.
    #[error("its security version {found} is below the floor {floor}")]
    SecurityVersion {
        /// The image's.
        found: SecurityVersion,
        /// The floor's.
        floor: SecurityVersion,
    },
    /// Signed under keys that may have been withdrawn since.
    #[error(
        "its keyring has serial {found}, below the floor {floor}: its keys may have been withdrawn"
    )]
    KeyringSerial {
        /// The image's.
        found: KeyringSerial,
        /// The floor's.
        floor: KeyringSerial,
    },
    /// It would drive up the floor.
    #[error("its security version {found} is more than {STEP} above the floor {floor}")]
    SecurityVersionStep {
        /// The image's.
        found: SecurityVersion,
        /// The floor's.
        floor: SecurityVersion,
    },
    /// It would drive up the floor.
    #[error("its keyring has serial {found}, more than {STEP} above the floor {floor}")]
    KeyringSerialStep {
        /// The image's.
        found: KeyringSerial,
        /// The floor's.
        floor: KeyringSerial,
    },
}

impl NotAdmitted {
    /// Whether it is below the floor, and not too far above it.
    pub fn is_below(self) -> bool {
        matches!(
            self,
            Self::SecurityVersion { .. } | Self::KeyringSerial { .. }
        )
    }
}

impl Level {
    /// Whether an image of this level may start, as far as this floor goes. How far it is above says nothing against a
    /// start: a floor may have been lost with the record.
    ///
    /// # Errors
    /// What of it is below the floor.
    pub fn admits(self, image: Self) -> Result<(), NotAdmitted> {
        if image.security_version < self.security_version {
            let (found, floor) = (image.security_version, self.security_version);
            return Err(NotAdmitted::SecurityVersion { found, floor });
        }
        if image.keyring_serial < self.keyring_serial {
            let (found, floor) = (image.keyring_serial, self.keyring_serial);
            return Err(NotAdmitted::KeyringSerial { found, floor });
        }
        Ok(())
    }

    /// Whether an image of this level may be installed, as far as this floor goes: it may start, and is not more than
    /// [`STEP`] above.
    ///
    /// # Errors
    /// What of it is below the floor, or too far above.
    pub fn admits_new(self, image: Self) -> Result<(), NotAdmitted> {
        self.admits(image)?;
        if !in_reach(self.security_version.0, image.security_version.0) {
            let (found, floor) = (image.security_version, self.security_version);
            return Err(NotAdmitted::SecurityVersionStep { found, floor });
        }
        if !in_reach(self.keyring_serial.0, image.keyring_serial.0) {
            let (found, floor) = (image.keyring_serial, self.keyring_serial);
            return Err(NotAdmitted::KeyringSerialStep { found, floor });
        }
        Ok(())
    }

    /// This floor, raised to `image` as far as that is in reach: what is lower or more than [`STEP`] above raises
    /// nothing.
    #[must_use]
    pub fn raised_to(self, image: Self) -> Self {
        let raised = |floor: u64, to: u64| match in_reach(floor, to) {
            true => floor.max(to),
            false => floor,
        };
        Self::new(
            raised(self.security_version.0, image.security_version.0),
            raised(self.keyring_serial.0, image.keyring_serial.0),
        )
    }

    /// Of a security version and a keyring serial.
    pub const fn new(security_version: u64, keyring_serial: u64) -> Self {
        Self {
            security_version: SecurityVersion(security_version),
            keyring_serial: KeyringSerial(keyring_serial),
        }
    }

    /// The higher of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            security_version: self.security_version.max(other.security_version),
            keyring_serial: self.keyring_serial.max(other.keyring_serial),
        }
    }

    /// The lower of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            security_version: self.security_version.min(other.security_version),
            keyring_serial: self.keyring_serial.min(other.keyring_serial),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, serial) = (self.security_version, self.keyring_serial);
        write!(f, "{version} (keyring {serial})")
    }
}

impl Floors {
    /// The one that counts for `target`.
    pub fn of(&self, target: Target) -> Level {
        match target {
            Target::A | Target::B => self.system,
            Target::Recovery => self.recovery,
        }
    }

    /// The same, to change.
    pub fn of_mut(&mut self, target: Target) -> &mut Level {
        match target {
            Target::A | Target::B => &mut self.system,
            Target::Recovery => &mut self.recovery,
        }
    }

    /// The higher of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            system: self.system.max(other.system),
            recovery: self.recovery.max(other.recovery),
        }
    }
}

fn in_reach(floor: u64, image: u64) -> bool {
    image <= floor.saturating_add(STEP)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    const MAX: u64 = u64::MAX;

    #[test]
    fn each_part_of_a_floor_counts_for_a_start() {
        let floor = Level::new(3, 2);
        let refused = |security, serial| floor.admits(Level::new(security, serial)).err();
        assert_eq!(
            (refused(3, 2), refused(4, 9), refused(MAX, MAX)),
            (None, None, None)
        );
        let old = refused(2, 9).unwrap();
        assert_eq!(
            old.to_string(),
            "its security version 2 is below the floor 3"
        );
        let withdrawn = refused(9, 1).unwrap();
        let text = "its keyring has serial 1, below the floor 2: its keys may have been withdrawn";
        assert_eq!(withdrawn.to_string(), text);
        assert!(old.is_below() && withdrawn.is_below());
        assert_eq!(Level::default().admits(Level::default()), Ok(()));
    }

    #[test]
    fn what_is_too_far_above_a_floor_starts_but_is_not_installed() {
        let floor = Level::new(3, 2);
        for (image, fits) in [
            (Level::new(3, 2), true),
            (Level::new(3 + STEP, 2 + STEP), true),
            (Level::new(4 + STEP, 2), false),
            (Level::new(3, 3 + STEP), false),
            (Level::new(MAX, 2), false),
            (Level::new(2, 2), false),
            (Level::new(3, 1), false),
        ] {
            let found = floor.admits_new(image);
            assert_eq!(found.is_ok(), fits, "{image:?}");
            let far = found.is_err_and(|it| !it.is_below());
            assert!(!far || floor.admits(image).is_ok(), "{image:?}");
        }
        let near_the_end = Level::new(MAX - 1, 0);
        assert_eq!(near_the_end.admits_new(Level::new(MAX, 0)), Ok(()));
    }

    #[test]
    fn a_floor_rises_as_far_as_an_image_is_in_reach_and_never_falls() {
        let floor = Level::new(3, 2);
        for (image, raised) in [
            (Level::new(5, 4), Level::new(5, 4)),
            (Level::new(1, 1), floor),
            (Level::new(3 + STEP, 1), Level::new(3 + STEP, 2)),
            (Level::new(MAX, 4), Level::new(3, 4)),
            (Level::new(4, MAX), Level::new(4, 2)),
        ] {
            assert_eq!(floor.raised_to(image), raised, "{image:?}");
        }
    }

    #[test]
    fn one_image_of_the_highest_version_locks_nothing_out() {
        let attacked = Level::new(3, 1).raised_to(Level::new(MAX, 1));
        assert_eq!(attacked.admits_new(Level::new(4, 1)), Ok(()));
        // The most that one image can do is answered by one, which machines that saw nothing of it take as well.
        let attacked = Level::new(3, 1).raised_to(Level::new(3 + STEP, 1));
        let answer = Level::new(3 + STEP, 1);
        assert_eq!(attacked.admits_new(answer), Ok(()));
        assert_eq!(Level::new(3, 1).admits_new(answer), Ok(()));
    }
}
