//! Upstream Kubernetes, set up by kubeadm.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Contribution, Distribution};
use crate::schema::{Cidr, Problem, ServerName};

/// Settings of a kubeadm cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What this machine is in the cluster.
    pub role: Role,
    /// Name of the cluster.
    #[serde(default = "default_cluster_name")]
    pub cluster_name: ServerName,
    /// Addresses for pods.
    #[serde(default = "default_pod_cidr")]
    pub pod_cidr: Cidr,
    /// Addresses for services.
    #[serde(default = "default_service_cidr")]
    pub service_cidr: Cidr,
    /// Domain of services and pods.
    #[serde(default = "default_dns_domain")]
    pub dns_domain: ServerName,
    /// Address under which this node serves and is known. Without it the node has one of its own,
    /// 10.44.0.1, on the loopback interface, so that a lease that changes or a site without a
    /// network does not stop the cluster.
    #[serde(default = "default_node_address")]
    pub node_address: std::net::IpAddr,
    /// Further names and addresses for the API server's certificate.
    #[serde(default)]
    pub api_names: Vec<ServerName>,
    /// How pods are connected.
    #[serde(default)]
    pub cni: Cni,
    /// Feature gates of Kubernetes.
    #[serde(default)]
    pub feature_gates: std::collections::BTreeMap<String, bool>,
    /// Most pods on this node.
    #[serde(default = "default_max_pods")]
    #[schemars(range(min = 10, max = 500))]
    pub max_pods: u16,
}

/// What a machine is in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Starts a cluster of its own: control plane and worker in one.
    Init,
}

/// How pods are connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// A bridge on this node (plugins bridge, host-local, portmap): for a cluster of one node.
    #[default]
    Bridge,
    /// Nothing: something that is installed later brings it. The node is not Ready until then.
    None,
}

fn default_cluster_name() -> ServerName {
    ServerName::literal("kubernetes")
}
fn default_dns_domain() -> ServerName {
    ServerName::literal("cluster.local")
}
fn default_pod_cidr() -> Cidr {
    Cidr::v4([10, 42, 0, 0], 16)
}
fn default_service_cidr() -> Cidr {
    Cidr::v4([10, 43, 0, 0], 16)
}
fn default_node_address() -> std::net::IpAddr {
    std::net::IpAddr::from([10, 44, 0, 1])
}
fn default_max_pods() -> u16 {
    110
}

impl Distribution for Settings {
    fn name(&self) -> &'static str {
        "kubeadm"
    }

    fn validate(&self, _profile: &crate::Profile) -> Vec<Problem> {
        Vec::new()
    }

    fn render(&self, _context: &Context<'_>) -> Contribution {
        Contribution::default()
    }
}
