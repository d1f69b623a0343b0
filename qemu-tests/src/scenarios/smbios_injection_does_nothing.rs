//! whatever SMBIOS and fw_cfg say, the kernel has the image's own command line, systemd imports no credential, and the machine is marked good

use anyhow::{Context as _, Result};
use boot_core::pe::EfiProgram;

use crate::artefacts::{Image, Version};
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "smbios-injection-does-nothing",
    shows: "whatever SMBIOS and fw_cfg say, the kernel has the image's own command line, systemd imports no credential, and the machine is marked good",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 60,
    run,
};

/// What systemd-stub, systemd-boot and systemd read of SMBIOS's OEM strings (type 11). The first would let the kernel
/// pass the agent by and start a program of another filesystem.
const STRINGS: [&str; 4] = [
    "io.systemd.stub.kernel-cmdline-extra=rdinit=/none root=/dev/vda9 rw init=/injected",
    "io.systemd.boot.kernel-cmdline-extra=rdinit=/none init=/injected",
    "io.systemd.credential:injected=text",
    "io.systemd.credential.binary:injected-too=dGV4dA==",
];

/// What systemd reads of QEMU's fw_cfg.
const FW_CFG: &str = "opt/io.systemd.credentials/injected-by-fw-cfg";

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let strings = STRINGS.map(|string| format!(",value={string}")).concat();
    let injected = Options {
        extra: vec![
            "-smbios".to_owned(),
            format!("type=11{strings}"),
            "-fw_cfg".to_owned(),
            format!("name={FW_CFG},string=text"),
        ],
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], injected, Version::First)?;

    // It was there to be read.
    let tables =
        machine.run("tr '\\0' '\\n' </sys/firmware/dmi/tables/DMI | grep -a io.systemd")?;
    expect(
        STRINGS.iter().all(|string| tables.contains(string)),
        "all strings in SMBIOS's tables",
        &tables.as_str().into(),
    )?;
    let item = format!("modprobe qemu_fw_cfg; cat /sys/firmware/qemu_fw_cfg/by_name/{FW_CFG}/raw");
    let item = machine.run(&item)?;
    expect(item == "text", "the item of fw_cfg", &item.as_str().into())?;

    let line = machine.run("cat /proc/cmdline")?;
    let own = command_line(&context.image(Version::First)?)?;
    let what = format!("the command line {own:?}");
    expect(line.trim() == own, &what, &line.as_str().into())?;
    let credentials = machine.run("ls -A /run/credentials/@system 2>/dev/null || true")?;
    expect(
        credentials.is_empty(),
        "no credential",
        &credentials.as_str().into(),
    )
}

/// The command line that is in the image's UKI.
fn command_line(image: &Image) -> Result<String> {
    let path = image.directory().join("uki.efi");
    let uki = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let section = EfiProgram::parse(&uki).and_then(|program| program.section(".cmdline"));
    let section = section.and_then(|range| uki.get(range));
    let section = section.with_context(|| format!("{} has no command line", path.display()))?;
    let text = std::str::from_utf8(section).context("a command line that is no text")?;
    Ok(text.trim_end_matches('\0').trim().to_owned())
}
