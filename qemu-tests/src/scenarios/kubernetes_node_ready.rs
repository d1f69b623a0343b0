//! the Kubernetes image boots to node Ready and is marked good

use std::time::Duration;

use anyhow::Result;

use crate::artefacts::Version;
use crate::machine::Options;
use crate::scenario::{Architecture, Begins, Context, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kubernetes-node-ready",
    shows: "the Kubernetes image boots to node Ready and is marked good",
    architecture: Architecture::X86_64,
    recipe: "kubeadm-vm",
    begins: Begins::PowerOn,
    gate: true,
    seconds: 300,
    run,
};

fn run(context: &Context) -> Result<()> {
    let disk = context.first_disk()?;
    disk.grow(16 << 30)?;
    let options = Options {
        memory: 4096,
        ..Options::default()
    };
    let mut machine = context.start_well(&[&disk], options, Version::First)?;
    // It was Ready at the verdict. On a slow host its lease can be late and it is not, for a while.
    machine.run_within(
        "kubectl --kubeconfig /etc/kubernetes/admin.conf wait --for=condition=Ready node --all --timeout=300s",
        Duration::from_secs(330),
    )?;
    Ok(())
}
