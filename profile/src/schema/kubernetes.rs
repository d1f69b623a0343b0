//! `kubernetes:` of a profile, and the [`Cluster`] that it becomes. A distribution is named here, as people write it, and
//! in the list of [`crate::kubernetes`]; a test holds both together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, ServerName};
use crate::kubernetes::{
    Cluster, Datastore, Distribution, Encryption, Endpoint, Names, NodeSettings, Settings, kubeadm,
};

/// Kubernetes: which distribution, and its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "distribution", rename_all = "lowercase", deny_unknown_fields)]
pub enum Kubernetes {
    /// Upstream Kubernetes, set up by kubeadm.
    Kubeadm(Kubeadm),
}

impl Kubernetes {
    /// The distribution that the profile names.
    #[must_use]
    pub fn distribution(&self) -> &'static dyn Distribution {
        match self {
            Self::Kubeadm(_) => &kubeadm::Kubeadm,
        }
    }

    /// The cluster that it describes. What version 1 of the profile cannot say has the one value that there is.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        match self {
            Self::Kubeadm(said) => said.cluster(),
        }
    }
}

impl Kubeadm {
    fn cluster(&self) -> Cluster {
        Cluster {
            role: self.role,
            endpoint: Endpoint {
                address: self.node_address.unwrap_or(INTERNAL_ADDRESS),
                names: self.api_names.clone(),
            },
            join: None,
            datastore: Datastore::Etcd,
            pods: vec![self.pod_cidr],
            services: vec![self.service_cidr],
            names: Names {
                cluster: self.cluster_name.clone(),
                domain: self.dns_domain.clone(),
            },
            node: NodeSettings {
                address: self.node_address,
                max_pods: self.max_pods,
            },
            encryption: Encryption::Off,
            settings: Settings {
                cni: self.cni,
                feature_gates: self.feature_gates.clone(),
            },
        }
    }
}

/// The address of a node that was given none.
const INTERNAL_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 0, 1));

/// Settings of a kubeadm cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubeadm {
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
    /// Address under which this node serves and is known; the machine must have it. Without it the
    /// node uses 10.44.0.1, an address of its own on the loopback interface, so that neither a new
    /// lease nor a site without a network stops the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_address: Option<IpAddr>,
    /// Further names and addresses for the API server's certificate.
    #[serde(default)]
    pub api_names: Vec<ServerName>,
    /// How pods are connected.
    #[serde(default)]
    pub cni: Cni,
    /// Feature gates of Kubernetes, for the control plane, the kubelet and kube-proxy.
    #[serde(default)]
    pub feature_gates: BTreeMap<String, bool>,
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
fn default_max_pods() -> u16 {
    110
}
