//! The layout of a disk: which partitions there are, in which order, of which types.
//!
//! Partitions cannot be added or grown in the field (but for the last), so a layout has an id that
//! manifests name. Details: docs/formats/layout.md.

use alloc::{format, string::String, vec::Vec};
use core::{fmt, str::FromStr};

use crate::{
    bytes::{field, put},
    slot::Slot,
    store,
    types::ParseError,
};

/// Id of the one layout there is.
pub const AB_1: &str = "ab-1";

/// What every start and size is a multiple of.
pub const ALIGNMENT: u64 = 1 << 20;

/// What mkfs.ext4 is told whenever `state` is made: by `imager`, and by `bootctl` where it is to be
/// erased. The agent looks for copies of the superblock by this size of blocks. Features are those named here, whatever
/// a newer mkfs.ext4 would switch on: kernel and e2fsck of an older slot and of recovery read it too.
pub const STATE_FILESYSTEM: [&str; 16] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-I",
    "256",
    "-i",
    "16384",
    "-m",
    "1",
    "-L",
    "state",
    "-O",
    "none,64bit,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,has_journal,huge_file,large_file,\
     metadata_csum,resize_inode,sparse_super",
    "-J",
    "size=64",
];

/// A GUID as GPT and UEFI store it: the first three groups little endian.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

/// Vendor of our EFI variables.
pub const VENDOR: Guid = Guid::from_fields(0x6e56_d3ab, 0xd913, 0x4a68, 0xafdf_7363_8fbe_c4a8);
/// Type of an EFI system partition.
pub const TYPE_ESP: Guid = Guid::from_fields(0xc12a_7328, 0xf81f, 0x11d2, 0xba4b_00a0_c93e_c93b);
/// Type of `boot-state`.
pub const TYPE_BOOT_STATE: Guid =
    Guid::from_fields(0x6661_82aa, 0x27c9, 0x4f2e, 0xa2da_2c8b_02ba_d721);
/// Type of `boot-a`, `boot-b`, `boot-r`.
pub const TYPE_BOOT: Guid = Guid::from_fields(0x5d87_8515, 0x6ef5, 0x4f4c, 0x9bdd_836c_a536_4b58);
/// Type of `root-a`, `root-b`.
pub const TYPE_ROOT: Guid = Guid::from_fields(0x319c_764a, 0x0b15, 0x4252, 0xaae3_d085_9432_e077);
/// Type of `state`.
pub const TYPE_STATE: Guid = Guid::from_fields(0xb99a_3825, 0x460a, 0x4e7e, 0xb5ac_1413_dc31_4c00);

/// Vendor of the variables by which a loader tells the system what it was started from
/// (systemd.io/BOOT_LOADER_INTERFACE).
pub const BOOT_LOADER_INTERFACE: Guid =
    Guid::from_fields(0x4a67_b082, 0x0a4c, 0x41cf, 0xb6c7_440b_29bb_8c4f);

impl Guid {
    /// From its groups, the last two as one number.
    pub const fn from_fields(first: u32, second: u16, third: u16, rest: u64) -> Self {
        let [a0, a1, a2, a3] = first.to_le_bytes();
        let [b0, b1] = second.to_le_bytes();
        let [c0, c1] = third.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = rest.to_be_bytes();
        Self([
            a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
        ])
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = u32::from_le_bytes(field(&self.0, 0));
        let second = u16::from_le_bytes(field(&self.0, 4));
        let third = u16::from_le_bytes(field(&self.0, 6));
        let fourth = u16::from_be_bytes(field(&self.0, 8));
        let node: [u8; 6] = field(&self.0, 10);
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-")?;
        node.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

impl FromStr for Guid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = ParseError::Hex(32);
        let digits: String = text.split('-').collect();
        let mut straight = [0; 16];
        hex::decode_to_slice(&digits, &mut straight).map_err(|_| wrong)?;
        let mut bytes = straight;
        put(
            &mut bytes,
            0,
            &u32::from_be_bytes(field(&straight, 0)).to_le_bytes(),
        );
        put(
            &mut bytes,
            4,
            &u16::from_be_bytes(field(&straight, 4)).to_le_bytes(),
        );
        put(
            &mut bytes,
            6,
            &u16::from_be_bytes(field(&straight, 6)).to_le_bytes(),
        );
        let guid = Self(bytes);
        if text.eq_ignore_ascii_case(&format!("{guid}")) {
            Ok(guid)
        } else {
            Err(wrong)
        }
    }
}

/// One of the partitions of layout `ab-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// First ESP.
    EspA,
    /// Second ESP, the same as the first.
    EspB,
    /// Boot-state record and rings.
    BootState,
    /// Slot header and UKI of slot A.
    BootA,
    /// Slot header and UKI of slot B.
    BootB,
    /// Slot header and UKI of recovery.
    BootR,
    /// Root of slot A.
    RootA,
    /// Root of slot B.
    RootB,
    /// The writable filesystem; last, because it grows.
    State,
}

impl Label {
    /// All, in the order in which they lie on the disk.
    pub const ALL: [Self; 9] = [
        Self::EspA,
        Self::EspB,
        Self::BootState,
        Self::BootA,
        Self::BootB,
        Self::BootR,
        Self::RootA,
        Self::RootB,
        Self::State,
    ];

    /// Its label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::EspA => "esp-a",
            Self::EspB => "esp-b",
            Self::BootState => "boot-state",
            Self::BootA => Slot::A.label_boot(),
            Self::BootB => Slot::B.label_boot(),
            Self::BootR => "boot-r",
            Self::RootA => Slot::A.label_root(),
            Self::RootB => Slot::B.label_root(),
            Self::State => "state",
        }
    }

    /// The partition with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.label() == label)
    }

    /// Its type GUID.
    pub const fn type_guid(self) -> Guid {
        match self {
            Self::EspA | Self::EspB => TYPE_ESP,
            Self::BootState => TYPE_BOOT_STATE,
            Self::BootA | Self::BootB | Self::BootR => TYPE_BOOT,
            Self::RootA | Self::RootB => TYPE_ROOT,
            Self::State => TYPE_STATE,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.label())
    }
}

/// Sizes that a recipe decides, in bytes; rounded up to [`ALIGNMENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `boot-a` and `boot-b`.
    pub boot: u64,
    /// `boot-r`.
    pub recovery: u64,
    /// `root-a` and `root-b`.
    pub root: u64,
    /// `state` as it is shipped.
    pub state: u64,
}

/// Where a partition lies on a new disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The partition's label.
    pub label: Label,
    /// Where it starts, in bytes from the start of the disk.
    pub start: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// Where everything lies on a new disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes in a sector.
    pub sector_size: u32,
    /// The partitions, in the order of [`Label::ALL`].
    pub partitions: Vec<Extent>,
    /// Bytes of the smallest disk that holds them and both partition tables.
    pub disk_size: u64,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A sector size that GPT is not written for here.
    #[error("sector size {0} is not 512 or 4096")]
    SectorSize(u32),
    /// A partition without room for anything.
    #[error("{0} has no room: at least {min} bytes are needed", min = ALIGNMENT)]
    Empty(Label),
    /// More than a disk can hold.
    #[error("the partitions are larger than any disk")]
    TooLarge,
}

/// Bytes of an ESP. FAT32 needs 65,525 clusters, and a cluster is at least a sector.
const fn esp_size(sector_size: u32) -> Option<u64> {
    match sector_size {
        512 => Some(64 << 20),
        4096 => Some(260 << 20),
        _ => None,
    }
}

/// Lays out a new disk in layout `ab-1`.
///
/// # Errors
/// [`PlanError`], if the sector size is not 512 or 4096 or the sizes make no sense.
pub fn plan(sizes: &Sizes, sector_size: u32) -> Result<Plan, PlanError> {
    let esp = esp_size(sector_size).ok_or(PlanError::SectorSize(sector_size))?;
    let size_of = |label| match label {
        Label::EspA | Label::EspB => esp,
        Label::BootState => store::PARTITION_SIZE,
        Label::BootA | Label::BootB => sizes.boot,
        Label::BootR => sizes.recovery,
        Label::RootA | Label::RootB => sizes.root,
        Label::State => sizes.state,
    };
    let mut start = ALIGNMENT;
    let mut partitions = Vec::with_capacity(Label::ALL.len());
    for label in Label::ALL {
        let size = size_of(label)
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or(PlanError::TooLarge)?;
        if size == 0 {
            return Err(PlanError::Empty(label));
        }
        partitions.push(Extent { label, start, size });
        start = start.checked_add(size).ok_or(PlanError::TooLarge)?;
    }
    let disk_size = start.checked_add(ALIGNMENT).ok_or(PlanError::TooLarge)?;
    Ok(Plan {
        sector_size,
        partitions,
        disk_size,
    })
}

impl Plan {
    /// Where a partition lies.
    pub fn partition(&self, label: Label) -> Option<&Extent> {
        self.partitions.iter().find(|extent| extent.label == label)
    }
}
