//! What can be started: slot A, slot B, recovery.

use core::fmt;

use serde::{Deserialize, Serialize};

/// One of the two system slots: `boot-x` and `root-x` together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `boot-a` and `root-a`.
    A,
    /// `boot-b` and `root-b`.
    B,
}

impl Slot {
    /// Both, in the order in which they lie on the disk.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Label of the partition that holds slot header and UKI.
    pub const fn label_boot(self) -> &'static str {
        match self {
            Self::A => "boot-a",
            Self::B => "boot-b",
        }
    }

    /// Label of the partition that holds the root filesystem and its verity tree.
    pub const fn label_root(self) -> &'static str {
        match self {
            Self::A => "root-a",
            Self::B => "root-b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// Something the loader can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Slot A.
    A,
    /// Slot B.
    B,
    /// The recovery system in `boot-r`.
    Recovery,
}

impl Target {
    /// All, in the order in which the last resort goes round.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::Recovery];

    /// The slot, if it is one.
    pub const fn slot(self) -> Option<Slot> {
        match self {
            Self::A => Some(Slot::A),
            Self::B => Some(Slot::B),
            Self::Recovery => None,
        }
    }

    /// Label of the partition that holds slot header and UKI.
    pub const fn label_boot(self) -> &'static str {
        match self {
            Self::A => "boot-a",
            Self::B => "boot-b",
            Self::Recovery => "boot-r",
        }
    }

    /// The byte that stands for it on the disk: 1 A, 2 B, 3 recovery.
    pub const fn code(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
            Self::Recovery => 3,
        }
    }

    /// The reverse of [`code`](Self::code).
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::Recovery),
            _ => None,
        }
    }

    /// The byte for "this or none", none being 0.
    pub(crate) fn code_or_none(target: Option<Self>) -> u8 {
        target.map_or(0, Self::code)
    }

    /// What comes after this one when the last resort goes round.
    pub const fn next_in_round(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::Recovery,
            Self::Recovery => Self::A,
        }
    }
}

impl From<Slot> for Target {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::A => Self::A,
            Slot::B => Self::B,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "slot A",
            Self::B => "slot B",
            Self::Recovery => "recovery",
        })
    }
}
