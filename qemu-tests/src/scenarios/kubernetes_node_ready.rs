//! the Kubernetes image boots to node Ready and is marked good

use std::time::Duration;

use anyhow::Result;

use crate::machine::Options;
use crate::scenario::{Architecture, Context, Scenario};

/// From the login to the verdict; slow hosts have slow emulation.
const PATIENCE: Duration = Duration::from_secs(1200);

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "kubernetes-node-ready",
    shows: "the Kubernetes image boots to node Ready and is marked good",
    architecture: Architecture::X86_64,
    recipe: "kubeadm-vm",
    gate: false,
    seconds: 240,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    disk.grow(16 << 30)?;
    let mut machine = context.start(
        &[&disk],
        Options {
            memory: 4096,
            ..Options::default()
        },
    )?;
    machine.wait_for_boot(machine.boot_limit())?;
    machine.wait_for_ssh(machine.boot_limit())?;
    machine.wait_for_status(PATIENCE, "healthy Kubernetes node", |status| {
        status["health"]["verdict"] == "healthy" && status["booted"]["good"] == true
    })?;
    machine.run("kubectl --kubeconfig /etc/kubernetes/admin.conf wait --for=condition=Ready node --all --timeout=10s")?;
    Ok(())
}
