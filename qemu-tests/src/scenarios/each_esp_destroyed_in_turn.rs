//! each ESP is destroyed in turn, under firmware that forgot all of its variables: the machine starts from the other one, from which the operator writes it again

use anyhow::Result;

use crate::artefacts::Version;
use crate::loaders;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::steps::expect;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "each-esp-destroyed-in-turn",
    shows: "each ESP is destroyed in turn, under firmware that forgot all of its variables: the machine starts from the other one, from which the operator writes it again",
    architecture: Architecture::X86_64,
    recipe: "minimal-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 90,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    let loader = loaders::on(context, &disk, "esp-a")?;
    for (destroyed, left) in [("esp-a", "esp-b"), ("esp-b", "esp-a")] {
        let (_, size) = disk.bounds(destroyed)?;
        disk.zero(destroyed, 0, size)?;
        let _ = std::fs::remove_file(context.file("firmware-variables.fd"));
        let mut machine = context.start(&[&disk], Options::default())?;
        machine.wait_for_boot(machine.boot_limit())?;
        machine.wait_for_line(&format!("loaded from {left}"), machine.boot_limit())?;
        let status = machine.wait_until_good(Version::First.number())?;
        expect(
            status["esps"][destroyed]["ok"] == false,
            "the destroyed ESP to be named",
            &status["esps"],
        )?;
        machine.run("bootctl update-loader --copy")?;
        machine.power_off()?;
        let again = loaders::on(context, &disk, destroyed)?;
        expect(
            again == loader,
            "the loader to be there again",
            &status["esps"],
        )?;
    }
    Ok(())
}
