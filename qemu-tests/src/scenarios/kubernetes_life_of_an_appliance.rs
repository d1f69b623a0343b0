//! the Kubernetes image boots, is upgraded and marked good with its workload kept, and refuses a version whose kubelet cannot come up

use anyhow::Result;

use crate::scenario::{Architecture, Begins, Context, Scenario};
use crate::story::Story;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kubernetes-life-of-an-appliance",
    shows: "the Kubernetes image boots, is upgraded and marked good with its workload kept, and refuses a version whose kubelet cannot come up",
    architecture: Architecture::X86_64,
    recipe: "kubeadm-vm",
    begins: Begins::PowerOn,
    gate: false,
    seconds: 900,
    run,
};

fn run(context: &Context) -> Result<()> {
    Story::new(context).tell().map(drop)
}
