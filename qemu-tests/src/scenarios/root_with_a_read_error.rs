//! a version on trial whose root cannot be read restarts the machine by dm-verity, and after its tries the other slot runs, reads it and says why

use anyhow::Result;

use crate::fault::{Access, Faults};
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::scenarios::root_with_a_flipped_bit::stopped_by_verity;
use crate::slots;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "root-with-a-read-error",
    shows: "a version on trial whose root cannot be read restarts the machine by dm-verity, and after its tries the other slot runs, reads it and says why",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 110,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, false)?;
    // The superblock of the filesystem: what is read first.
    let faults = Faults::new(&disk).at("root-b", 1024, Access::Read)?;
    let options = faults.options(context)?;
    stopped_by_verity(context, &disk, options, "I/O error", "")
}
