//! A cluster and this machine's part in it, said in the same words for all distributions.
//!
//! It is what `kubernetes:` of a profile becomes. Proxies, certificate authorities and registries belong to the host.

use core::fmt;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

pub use crate::schema::kubernetes::{Cni, Role};
use crate::schema::{Cidr, ServerName};

/// A cluster, and what this machine is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// What this machine is in it.
    pub role: Role,
    /// Where its API is found.
    pub endpoint: Endpoint,
    /// What lets this machine in, where it joins one that exists.
    pub join: Option<SecretRef>,
    /// Where it keeps what it knows.
    pub datastore: Datastore,
    /// Addresses for pods, one network a family.
    pub pods: Vec<Cidr>,
    /// Addresses for services, one network a family.
    pub services: Vec<Cidr>,
    /// What it is called.
    pub names: Names,
    /// About this node.
    pub node: NodeSettings,
    /// How secrets lie in the datastore.
    pub encryption: Encryption,
    /// What Kubernetes itself is told.
    pub settings: Settings,
}

impl Cluster {
    /// What of this cluster has addresses of `outside`, a network or a single address that is found outside of it: what
    /// has both is looked for in the cluster.
    #[must_use]
    pub fn overlaps(&self, outside: &Cidr) -> Vec<Overlap> {
        let part = |part| move |network: &Cidr| (part, *network);
        let own = Cidr::single(self.endpoint.address);
        let node = self.node.address.is_none().then_some((Part::Node, own));
        let pods = self.pods.iter().map(part(Part::Pods));
        let services = self.services.iter().map(part(Part::Services));
        pods.chain(services)
            .chain(node)
            .filter(|(_, network)| network.overlaps(outside))
            .map(|(part, network)| Overlap { part, network })
            .collect()
    }
}

/// A part of a cluster that has addresses which something outside of it has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap {
    /// Which part.
    pub part: Part,
    /// Its addresses.
    pub network: Cidr,
}

/// What in a cluster has addresses of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The pods.
    Pods,
    /// The services.
    Services,
    /// The node, where it has an address inside the cluster alone.
    Node,
}

impl Overlap {
    /// The field of `kubernetes` that gives the part other addresses.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self.part {
            Part::Pods => "pod_cidr",
            Part::Services => "service_cidr",
            Part::Node => "node_address",
        }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Pods => write!(f, "the cluster's pods ({})", self.network),
            Part::Services => write!(f, "the cluster's services ({})", self.network),
            Part::Node => write!(f, "this machine, which has it inside the cluster"),
        }
    }
}

/// Where the API of a cluster is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Without a balancer: the address of the one node that serves it.
    pub address: IpAddr,
    /// Further names and addresses that its certificate is good for.
    pub names: Vec<ServerName>,
}

/// A secret, by the path of the file that holds it. Never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef(pub String);

/// Where a cluster keeps what it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datastore {
    /// etcd on the nodes of the control plane.
    Etcd,
}

/// What a cluster is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The cluster itself.
    pub cluster: ServerName,
    /// The domain of its services and pods.
    pub domain: ServerName,
}

/// What concerns one node alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Its address; without one it makes the endpoint's its own, on the loopback interface.
    pub address: Option<IpAddr>,
    /// Most pods on it.
    pub max_pods: u16,
}

/// How secrets lie in the datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// As they are.
    Off,
}

/// What Kubernetes itself is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How pods are connected.
    pub cni: Cni,
    /// For the control plane, the kubelet and kube-proxy.
    pub feature_gates: BTreeMap<String, bool>,
}

/// What may not change once a cluster exists: it is in certificates, in objects, and in what other machines know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The distribution.
    pub distribution: String,
    /// The name of this node.
    pub node: String,
    /// Networks of pods.
    pub pods: Vec<Cidr>,
    /// Networks of services.
    pub services: Vec<Cidr>,
    /// Domain of services and pods.
    pub domain: ServerName,
}

/// How somebody on this machine reaches the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Path of the kubeconfig.
    pub kubeconfig: &'static str,
    /// Whether it may do everything.
    pub admin: bool,
}

/// A path on `state` that belongs to a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatePath {
    /// Absolute.
    pub path: &'static str,
    /// What becomes of it when a slot goes back.
    pub class: Class,
}

/// What is to become of a path when a slot goes back to an older version. Not in force yet: both slots share all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It goes back too: what a newer version left is not for an older one.
    Restore,
    /// It may be emptied: it is made again from what is there.
    Rebuild,
    /// It stays.
    Keep,
}

/// Why a version may not use what another one left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kubernetes {to} cannot use what {from} left; install {wanted}")]
pub struct Skew {
    /// What was there: distribution and version.
    pub from: String,
    /// What the image has.
    pub to: String,
    /// What would do.
    pub wanted: String,
}
