//! Where the filesystem of `state` is to be had from. What is behind this seam decides how a volume is opened; what is
//! above it gets a block device with an ext4, and checks, mounts and grows that.
//!
//! | on the partition | the device | what is reported otherwise |
//! | --- | --- | --- |
//! | an ext4, whole or damaged | the partition itself; damage shows when it is checked | |
//! | a LUKS volume | none: nothing here opens one yet | locked: `unusable`, since it may be whole |
//! | there is no partition | none | `missing` |
//!
//! Nothing is ever formatted, and what cannot be opened is left as it is.

use block_file::Access;
use boot_core::boot_report::StateProblem;

use super::{Unfit, ext4};
use crate::block;
use crate::boot_disk::read_start;
use crate::failure::Failure;

/// How a LUKS header begins, of either version.
const LUKS: &[u8] = b"LUKS\xba\xbe";

/// What holds the filesystem.
pub(super) enum StateSource {
    /// The partition itself, by the kernel's name.
    Plain(String),
    /// A LUKS volume on the partition with this name.
    Luks(String),
    /// There is no such partition.
    Missing,
}

impl StateSource {
    /// What lies on the partition that the kernel calls `name`. One that cannot be read is taken for plain: reading it
    /// again says why.
    pub(super) fn on(name: Option<&str>) -> Self {
        let Some(name) = name else {
            return Self::Missing;
        };
        let start = block::open(name, Access::Read)
            .ok()
            .and_then(|mut device| read_start(&mut device, ext4::NEEDED).ok());
        match start {
            Some(start) if start.starts_with(LUKS) => Self::Luks(name.into()),
            _ => Self::Plain(name.into()),
        }
    }

    /// The kernel's name of the block device with the filesystem.
    pub(super) fn open(self) -> Result<String, Unfit> {
        let (problem, failure) = match self {
            Self::Plain(name) => return Ok(name),
            Self::Luks(name) => (
                StateProblem::Unusable,
                Failure::new(
                    "reading",
                    format_args!("state (/dev/{name})"),
                    "it is encrypted (LUKS), which this version cannot open",
                ),
            ),
            Self::Missing => (
                StateProblem::Missing,
                Failure::new("looking for the partition", "state", "not there"),
            ),
        };
        Err(Unfit { problem, failure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_not_taken_for_damage() {
        let opened = |source: StateSource| source.open().map_err(|unfit| unfit.problem);
        let plain = StateSource::Plain("vda10".into());
        assert_eq!(opened(plain), Ok("vda10".into()));
        let locked = StateSource::Luks("vda10".into());
        assert_eq!(opened(locked), Err(StateProblem::Unusable));
        let missing = StateSource::on(None);
        assert_eq!(opened(missing), Err(StateProblem::Missing));
    }
}
