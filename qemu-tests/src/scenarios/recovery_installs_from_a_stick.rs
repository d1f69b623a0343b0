//! with the boot-state record lost and no slot that verifies, recovery installs a bundle from a USB stick, and the record is whole again

use std::time::Duration;

use anyhow::Result;
use boot_core::Target;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::{REBOOT, expect};
use crate::{slots, stick};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "recovery-installs-from-a-stick",
    shows: "with the boot-state record lost and no slot that verifies, recovery installs a bundle from a USB stick, and the record is whole again",
    architecture: Architecture::X86_64,
    // Debian's cloud kernels have no USB.
    recipe: "minimal",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 200,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let (_, record) = disk.bounds("boot-state")?;
    disk.zero("boot-state", 0, record)?;
    slots::damage_uki(&disk, Target::A)?;
    let usb = context.file("stick.raw");
    let bundle = context.image(Version::Second)?.bundle();
    stick::make(&usb, &bundle, "bundle.spb")?;
    let options = Options {
        memory: 2048,
        extra: [
            "-device",
            "qemu-xhci,id=sticks",
            "-drive",
            &format!("if=none,id=stick,format=raw,file={}", usb.display()),
            "-device",
            "usb-storage,bus=sticks.0,drive=stick,removable=on",
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Options::default()
    };
    let mut machine = context.start(&[&disk], options)?;
    machine.wait_for_line("writing a new one", machine.boot_limit())?;
    machine.wait_for_line("starting recovery", machine.boot_limit())?;
    machine.wait_for_line("root@", machine.boot_limit())?;
    // A stick takes a moment to be there.
    machine.type_line("until test -b /dev/sda; do sleep 1; done; mount -o ro /dev/sda /mnt")?;
    machine.type_line("bootctl install --slot a --now /mnt/bundle.spb")?;
    machine.wait_for_boot(Duration::from_secs(300) + REBOOT)?;
    let status = machine.wait_until_good(Version::Second.number())?;
    expect(
        status["booted"]["slot"] == "a",
        "slot A to run",
        &status["booted"],
    )?;
    let copies = status["record"]["copies"].as_array();
    let valid = |copy: &serde_json::Value| copy.as_str().is_some_and(|it| it.starts_with("valid"));
    expect(
        copies.is_some_and(|copies| copies.len() == 2 && copies.iter().all(valid)),
        "two valid copies of the record",
        &status["record"],
    )
}
