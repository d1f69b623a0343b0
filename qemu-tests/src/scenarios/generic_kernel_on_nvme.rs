//! the image for real hardware, with the generic kernel, firmware and microcode, boots from NVMe and is marked good

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};
use crate::steps::expect;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "generic-kernel-on-nvme",
    shows: "the image for real hardware, with the generic kernel, firmware and microcode, boots from NVMe and is marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal",
    gate: true,
    seconds: 60,
    run,
};

fn run(context: &Context) -> Result<()> {
    let scenario = context.scenario();
    let built =
        context
            .artefacts()
            .recipe(scenario.recipe, scenario.architecture, Version::First, 512)?;
    let disk = context.disk(&built.disk(), "disk.raw", 512)?;
    let options = Options {
        bus: "nvme",
        memory: 2048,
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    let release = machine.run("uname -r")?;
    expect(
        !release.contains("cloud"),
        "the generic kernel",
        &release.trim().into(),
    )
}
