//! on ARM64, the Kubernetes image boots to node Ready and is marked good

use crate::scenario::{Architecture, Scenario};
use crate::scenarios::kubernetes_node_ready;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "arm64-kubernetes-node-ready",
    shows: "on ARM64, the Kubernetes image boots to node Ready and is marked good",
    architecture: Architecture::Aarch64,
    gate: false,
    seconds: 300,
    ..kubernetes_node_ready::SCENARIO
};
