//! the image for real hardware, with the generic kernel, firmware and microcode, boots from NVMe and is marked good

use anyhow::Result;
use object::{Object as _, ObjectSection as _};

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "generic-kernel-on-nvme",
    shows: "the image for real hardware, with the generic kernel, firmware and microcode, boots from NVMe and is marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 60,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
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
    )?;
    machine.run("test -e /usr/lib/firmware/rtl_nic/rtl8168h-2.fw")?;
    let uki = std::fs::read(context.image(Version::First)?.directory().join("uki.efi"))?;
    let uki = object::File::parse(&*uki)?;
    expect(
        uki.section_by_name(".ucode").is_some(),
        "CPU microcode in the UKI",
        &uki.sections()
            .filter_map(|section| section.name().ok().map(str::to_owned))
            .collect(),
    )
}
