//! What a manifest can describe, and what follows from it: where it has its place, which parts it has, which floor
//! counts. Here alone that is said; who asks for one kind takes no other in its stead.
//!
//! | kind | place | parts | floor |
//! | --- | --- | --- | --- |
//! | system | slot A or B | UKI, root | of systems |
//! | recovery | `boot-r` | UKI | recovery's |
//! | loader | both ESPs | the loader, as the UKI | of systems: it is as old as those that it was made with |
//! | content | a file on `state` | root | of systems, the keyring's serial alone |
//! | extension | a file on `state` | root | of systems: it becomes part of one |
//! | installer | a medium | UKI | recovery's: it starts without a record |

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    floor::{Floors, Level},
    slot::Target,
    types::SecurityVersion,
};

/// What a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A system for slot A or B.
    System,
    /// The recovery system.
    Recovery,
    /// A loader.
    Loader,
    /// Images and manifests of workloads.
    Content,
    /// What is added to a system.
    Extension,
    /// What installs a machine from a medium.
    Installer,
}

/// Where what a manifest describes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Slot A or B.
    Slot,
    /// The partition `boot-r`.
    Recovery,
    /// Both ESPs.
    Esps,
    /// A file on `state`, opened by its root hash.
    State,
    /// A stick, a CD, a server: beside the loader that starts it, on no machine's disk.
    Medium,
}

impl Kind {
    /// All, in the order of the table above.
    pub const ALL: [Self; 6] = [
        Self::System,
        Self::Recovery,
        Self::Loader,
        Self::Content,
        Self::Extension,
        Self::Installer,
    ];

    /// The one that a slot or recovery's partition holds.
    pub const fn of(target: Target) -> Self {
        match target {
            Target::A | Target::B => Self::System,
            Target::Recovery => Self::Recovery,
        }
    }

    /// The name that manifests use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Recovery => "recovery",
            Self::Loader => "loader",
            Self::Content => "content",
            Self::Extension => "extension",
            Self::Installer => "installer",
        }
    }

    /// Where it is kept.
    pub const fn place(self) -> Place {
        match self {
            Self::System => Place::Slot,
            Self::Recovery => Place::Recovery,
            Self::Loader => Place::Esps,
            Self::Content | Self::Extension => Place::State,
            Self::Installer => Place::Medium,
        }
    }

    /// Whether it has a UKI, or a loader in its place.
    pub const fn has_uki(self) -> bool {
        match self {
            Self::System | Self::Recovery | Self::Loader | Self::Installer => true,
            Self::Content | Self::Extension => false,
        }
    }

    /// Whether it has a filesystem with a verity tree.
    pub const fn has_root(self) -> bool {
        match self {
            Self::System | Self::Content | Self::Extension => true,
            Self::Recovery | Self::Loader | Self::Installer => false,
        }
    }

    /// Of a machine's floors the one that counts for it.
    pub fn floor(self, floors: &Floors) -> Level {
        match self {
            Self::System | Self::Loader | Self::Extension => floors.system,
            Self::Recovery | Self::Installer => floors.recovery,
            // How new workloads are says nothing of the system; who signed them does.
            Self::Content => Level {
                security_version: SecurityVersion(0),
                ..floors.system
            },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_place_and_a_slot_takes_its_own_alone() {
        for kind in Kind::ALL {
            let in_slots = Target::ALL.iter().filter(|it| Kind::of(**it) == kind);
            let expected = match kind.place() {
                Place::Slot => 2,
                Place::Recovery => 1,
                Place::Esps | Place::State | Place::Medium => 0,
            };
            assert_eq!(in_slots.count(), expected, "{kind}");
            assert!(kind.has_uki() || kind.place() == Place::State, "{kind}");
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.name());
        }
    }

    #[test]
    fn each_kind_has_its_floor() {
        let floors = Floors {
            system: Level::new(5, 4),
            recovery: Level::new(3, 2),
        };
        let expected = [(5, 4), (3, 2), (5, 4), (0, 4), (5, 4), (3, 2)];
        for (kind, (version, serial)) in Kind::ALL.into_iter().zip(expected) {
            assert_eq!(kind.floor(&floors), Level::new(version, serial), "{kind}");
        }
        for target in Target::ALL {
            assert_eq!(Kind::of(target).floor(&floors), floors.of(target));
        }
    }
}
