//! What is wrong with a cluster before it is made: networks of pods and services, addresses, names, feature gates.

use crate::diagnostics::Problem;
use crate::kubernetes::{Cluster, Cni};
use crate::schema::{Cidr, Network};

pub(super) fn problems(cluster: &Cluster, network: &Network) -> Vec<Problem> {
    let address = cluster.endpoint.address;
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: String, help: Option<String>| {
        problems.push(Problem::new(["kubernetes", field], message, help));
    };
    let pods = cluster.pods.iter().map(|cidr| ("pod_cidr", *cidr, 8));
    let services = cluster
        .services
        .iter()
        .map(|cidr| ("service_cidr", *cidr, 4));
    for (field, cidr, bits) in pods.chain(services) {
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
        let first = cidr.network().address();
        if first.is_multicast() || first.is_loopback() || first.is_unspecified() {
            wrong(
                field,
                format!("{cidr} holds addresses that no machine can have"),
                None,
            );
        }
        if cidr.contains(address) {
            wrong(
                field,
                format!("{cidr} contains the node's own address {}", address),
                None,
            );
        }
        for address in network.interfaces.iter().flat_map(|i| &i.addresses) {
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
    if cluster.settings.cni == Cni::Bridge {
        for pods in cluster.pods.iter().filter(|it| it.address().is_ipv4()) {
            // Not the network's own, not everybody's, not the bridge's.
            let room = (1_u64 << (32 - u32::from(pods.prefix()).min(32))).saturating_sub(3);
            if u64::from(cluster.node.max_pods) > room {
                wrong(
                    "max_pods",
                    format!("{pods} has addresses for {room} pods"),
                    Some(format!("at most {room}, or a larger `pod_cidr`")),
                );
            }
        }
    }
    for (pods, services) in pairs(&cluster.pods, &cluster.services) {
        if pods.overlaps(services) {
            wrong(
                "service_cidr",
                format!("services ({services}) and pods ({pods}) share addresses"),
                Some("the two networks must not overlap".into()),
            );
        }
    }
    let family = address.is_ipv4();
    let mut networks = cluster.pods.iter().chain(&cluster.services);
    if networks.any(|cidr| cidr.address().is_ipv4() != family) {
        let message = format!(
            "pods, services and the node's address ({address}) must all be IPv4, or all IPv6"
        );
        wrong("pod_cidr", message, None);
    }
    for gate in cluster.settings.feature_gates.keys() {
        if gate.is_empty() || !gate.bytes().all(|b| b.is_ascii_alphanumeric()) {
            wrong(
                "feature_gates",
                "the name of a feature gate consists of letters and digits".into(),
                None,
            );
        }
    }
    let interfaces = &network.interfaces;
    if let Some(address) = cluster.node.address {
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

/// Each of one list with each of another.
fn pairs<'c>(some: &'c [Cidr], others: &'c [Cidr]) -> impl Iterator<Item = (&'c Cidr, &'c Cidr)> {
    some.iter()
        .flat_map(move |one| others.iter().map(move |other| (one, other)))
}
