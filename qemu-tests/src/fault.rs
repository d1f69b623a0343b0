//! Disks that fail: errors at chosen places, by QEMU's `blkdebug` driver, and disks that have turned read-only.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::disk::Disk;
use crate::machine::Options;
use crate::scenario::Context;

/// QEMU's own id of the machine's first disk, as `imager run` gives it.
const FIRST: &str = "drive.disk0";

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
        }
    }
}

/// Places of one disk that answer with an input/output error, for as long as the machine runs.
#[derive(Debug)]
pub struct Faults<'d> {
    disk: &'d Disk,
    rules: String,
}

impl<'d> Faults<'d> {
    /// None yet.
    #[must_use]
    pub fn new(disk: &'d Disk) -> Faults<'d> {
        Faults {
            disk,
            rules: String::new(),
        }
    }

    /// Every access of this kind that touches the 512 bytes at `offset` in a partition fails.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn at(mut self, label: &str, offset: u64, access: Access) -> Result<Faults<'d>> {
        let (start, _) = self.disk.bounds(label)?;
        let sector = (start + offset) / 512;
        // "none" happens once, when the disk is opened, and leaves the rule in force.
        let _ = write!(
            self.rules,
            "[inject-error]\nevent = \"none\"\niotype = \"{}\"\nerrno = \"5\"\nsector = \"{sector}\"\n\n",
            access.name()
        );
        Ok(self)
    }

    /// A machine whose first disk, which is this one, fails so.
    ///
    /// # Errors
    /// The rules cannot be written.
    pub fn options(&self, context: &Context) -> Result<Options> {
        let path = context.file("faults.conf");
        std::fs::write(&path, &self.rules)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let disk: PathBuf = self.disk.path().canonicalize()?;
        Ok(set(&format!(
            "{FIRST}.file=blkdebug:{}:{}",
            path.canonicalize()?.display(),
            disk.display()
        )))
    }
}

impl Faults<'_> {
    /// A machine whose first disk takes no writes at all.
    #[must_use]
    pub fn read_only() -> Options {
        set(&format!("{FIRST}.readonly=on"))
    }
}

/// Changes what `imager run` says of a disk.
fn set(option: &str) -> Options {
    Options {
        extra: ["-set", option].map(str::to_owned).into(),
        ..Options::default()
    }
}
