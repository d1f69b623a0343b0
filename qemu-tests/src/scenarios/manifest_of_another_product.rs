//! a slot whose manifest is for another product is not started; the other one is

use anyhow::Result;
use boot_core::Slot;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::slots;
use crate::steps::expect_rejected;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "manifest-of-another-product",
    shows: "a slot whose manifest is for another product is not started; the other one is",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 45,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    slots::twin(&disk, true)?;
    slots::sign_again(&disk, Slot::B, &context.artefacts().keys()?, |manifest| {
        manifest["product"] = "toaster".into()
    })?;
    let mut machine = context.start_well(&[&disk], Options::default(), Version::First)?;
    expect_rejected(&machine.status()?, "b", "product")
}
