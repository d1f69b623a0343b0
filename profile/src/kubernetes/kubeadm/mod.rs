//! Upstream Kubernetes, set up by kubeadm: one node that is control plane and worker.
//!
//! Every program that runs comes from the verified root. kubeadm writes static pods as it always does,
//! under the names of its own images; behind all of these names is one small image (imported from the
//! root), and each pod gets its program by a read-only mount of a single file. Nothing is pulled.
//!
//! ```text
//! first boot     containerd → import → keys → kubeadm init → addons
//! later boots    containerd → import → kubelet
//! new image or   containerd → import → certificates, manifests, kubelet's configuration anew
//! new settings       → kubelet → what is kept in the cluster anew → addons
//! ```
//!
//! What was done is remembered in `/etc/kubernetes/sternpost/`, beside the certificates that it is
//! about: whatever goes back to an earlier state of `/etc/kubernetes` goes back with it.
//!
//! # A cluster is made once
//!
//! etcd's database is all that a site cannot make again, so one rule stands above all others here: *nothing is ever
//! cleared where there is a database*. etcd makes the folder `member` before it answers anybody, so without it the API
//! server has never answered and nobody can have kept anything in the cluster.
//!
//! | state | `sternpost/begun` | `sternpost/cluster` | `pki` | `etcd/member` | what a start does |
//! | --- | --- | --- | --- | --- | --- |
//! | nothing | – | – | – | – | notes `begun`, makes the keys, puts them on the disk, `kubeadm init` |
//! | begun | there | – | any | – | `kubeadm reset` if there are keys (they may be half written), then as above |
//! | begun, ran | there | – | there | there | `kubeadm init` again, over what is there |
//! | made | – | any | any | any | nothing if `cluster` is the key in force, else brought forward to it |
//!
//! - `begun` is written, and synced, only where there is nothing at all. What has no `begun` and is not nothing counts
//!   as made: a machine that lost its `cluster`, or one from before there was a `begun`, keeps its data. It is brought
//!   forward as if its settings had changed: certificates, manifests and the kubelet's configuration are written anew.
//! - The keys are on the disk before etcd can run, so that no cut leaves a database whose keys are lost.
//! - `kubeadm init` may be run again over what it left (preflight is skipped; each of its phases takes what is there or
//!   writes the same again). So a cut after the API server answered, at the very end even, costs nothing: the start after
//!   it finds a database and clears nothing. Settings that change before init has ended once may contradict the
//!   certificates that are there; then kubeadm says so and `kubeadm reset`, by hand, starts again.
//! - When init has ended well `begun` goes, then `cluster` comes. A cut between the two leaves a cluster without its
//!   stamp, which is adopted.
//! - Only "there is nothing" (ENOENT) counts as missing. Any other error ends the step that looked.
//!
//! Sources: kubeadm v1beta4 (k8s.io/kubernetes cmd/kubeadm/app/apis/kubeadm/v1beta4), kubeadm's own
//! addons (cmd/kubeadm/app/phases/addons), containerd 2 configuration version 3, CNI 1.0.

mod addons;
mod config;
mod steps;

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Context, Distribution};
use crate::Contribution;
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

/// The address of a node that was given none.
const INTERNAL_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 44, 0, 1));

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

impl Settings {
    fn address(&self) -> IpAddr {
        self.node_address.unwrap_or(INTERNAL_ADDRESS)
    }
}

impl Distribution for Settings {
    fn name(&self) -> &'static str {
        "kubeadm"
    }

    fn validate(&self, profile: &crate::Profile) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: String, help: Option<String>| {
            problems.push(Problem::new(["kubernetes", field], message, help));
        };
        for (field, cidr, bits) in [
            ("pod_cidr", self.pod_cidr, 8),
            ("service_cidr", self.service_cidr, 4),
        ] {
            if !cidr.is_network() {
                let help = format!("the network is {}", cidr.network());
                wrong(
                    field,
                    format!("{cidr} is an address, not a network"),
                    Some(help),
                );
            }
            let most = if cidr.address().is_ipv4() { 32 } else { 128 } - bits;
            if cidr.prefix() > most {
                wrong(
                    field,
                    format!("{cidr} is too small"),
                    Some(format!("at most /{most}")),
                );
            }
            // kube-apiserver refuses services with more than 20 bits; the controller manager, pods
            // with more than 16 bits beside those of a node.
            let least = if cidr.address().is_ipv4() { 8 } else { 48 };
            let least = if field == "service_cidr" {
                least + 4
            } else {
                least
            };
            let least = if cidr.address().is_ipv4() || field == "pod_cidr" {
                least
            } else {
                108
            };
            if cidr.prefix() < least {
                wrong(
                    field,
                    format!("{cidr} is larger than Kubernetes can use"),
                    Some(format!("at least /{least}")),
                );
            }
            if cidr.contains(self.address()) {
                wrong(
                    field,
                    format!("{cidr} contains the node's own address {}", self.address()),
                    None,
                );
            }
            for address in profile.network.interfaces.iter().flat_map(|i| &i.addresses) {
                if address.overlaps(&cidr) {
                    let message = format!("{cidr} overlaps the network {address} of this machine");
                    wrong(
                        field,
                        message,
                        Some("addresses inside the cluster must be found nowhere else".into()),
                    );
                }
            }
        }
        if self.pod_cidr.overlaps(&self.service_cidr) {
            let message = format!(
                "services ({}) and pods ({}) share addresses",
                self.service_cidr, self.pod_cidr
            );
            wrong(
                "service_cidr",
                message,
                Some("the two networks must not overlap".into()),
            );
        }
        let family = self.address().is_ipv4();
        if self.pod_cidr.address().is_ipv4() != family
            || self.service_cidr.address().is_ipv4() != family
        {
            let message = format!(
                "pods, services and the node's address ({}) must all be IPv4, or all IPv6",
                self.address()
            );
            wrong("pod_cidr", message, None);
        }
        for gate in self.feature_gates.keys() {
            if gate.is_empty() || !gate.bytes().all(|b| b.is_ascii_alphanumeric()) {
                wrong(
                    "feature_gates",
                    "the name of a feature gate consists of letters and digits".into(),
                    None,
                );
            }
        }
        let interfaces = &profile.network.interfaces;
        if let Some(address) = self.node_address {
            let fixed = interfaces
                .iter()
                .all(|i| i.dhcp != Some(true) && !i.addresses.is_empty());
            let has = interfaces
                .iter()
                .flat_map(|i| &i.addresses)
                .any(|a| a.address() == address);
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                wrong(
                    "node_address",
                    format!("{address} cannot be the address of a node"),
                    None,
                );
            } else if !interfaces.is_empty() && fixed && !has {
                let message = format!("no interface of this machine has the address {address}");
                wrong(
                    "node_address",
                    message,
                    Some("leave it out, or add it under `network`".into()),
                );
            }
        }
        problems
    }

    fn render(&self, context: &Context<'_>) -> Contribution {
        let version = context
            .image
            .kubernetes
            .as_ref()
            .map_or("", |k| k.version.as_str());
        let plan = config::Plan::new(
            self,
            version.trim_start_matches('v'),
            context.hostname,
            &context.image.architecture,
        );
        let files = plan.files();
        let key = plan.key(&files);
        Contribution {
            lanes: steps::lanes(self, &key),
            units: vec!["containerd.service".into(), "kubelet.service".into()],
            checks: steps::checks(context),
            files,
        }
    }
}
