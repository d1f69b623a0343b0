//! What is wrong with a cluster before it is made: networks of pods and services, addresses, names, feature gates.

use std::net::IpAddr;

use crate::diagnostics::Problem;
use crate::kubernetes::{Cluster, Cni};
use crate::scalar::is_no_hosts;
use crate::schema::{Cidr, Network};

/// Pods that have an address in what the controller manager gives a node: a /24.
const NODE_SHARE: u16 = 254;

pub(super) fn problems(cluster: &Cluster, network: &Network) -> Vec<Problem> {
    let address = cluster.endpoint.address;
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: String, help: Option<String>| {
        problems.push(Problem::new(["kubernetes", field], message, help));
    };
    let pods = cluster.pods.iter().map(|cidr| ("pod_cidr", *cidr));
    let services = cluster.services.iter().map(|cidr| ("service_cidr", *cidr));
    for (field, cidr) in pods.chain(services) {
        if !cidr.is_network() {
            let help = format!("the network is {}", cidr.network());
            wrong(
                field,
                format!("{cidr} is an address, not a network"),
                Some(help),
            );
        }
        let (least, most) = prefixes(field, cidr.address().is_ipv4());
        if cidr.prefix() > most {
            wrong(
                field,
                format!("{cidr} is too small"),
                Some(format!("at most /{most}")),
            );
        }
        if cidr.prefix() < least {
            wrong(
                field,
                format!("{cidr} is larger than Kubernetes can use"),
                Some(format!("at least /{least}")),
            );
        }
        let first = cidr.network().address();
        if is_no_hosts(first).is_some() || is_link_local(first) {
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
        let has = interfaces
            .iter()
            .flat_map(|i| &i.addresses)
            .any(|a| a.address() == address);
        if is_no_hosts(address).is_some() || is_link_local(address) {
            wrong(
                "node_address",
                format!("{address} cannot be the address of a node"),
                None,
            );
        } else if network.is_fixed() && !has {
            let message = format!("no interface of this machine has the address {address}");
            wrong(
                "node_address",
                message,
                Some("leave it out, or add it under `network`".into()),
            );
        }
    }
    problems.extend(room_for_pods(cluster));
    problems
}

/// Pods that find no address.
fn room_for_pods(cluster: &Cluster) -> Option<Problem> {
    let mut networks = cluster.pods.iter().filter(|it| it.address().is_ipv4());
    let pods = networks.next()?;
    let path = ["kubernetes", "max_pods"];
    match cluster.settings.cni {
        Cni::Bridge => {
            // Not the network's own, not everybody's, not the bridge's.
            let room = (1_u64 << (32 - u32::from(pods.prefix()).min(32))).saturating_sub(3);
            (u64::from(cluster.node.max_pods) > room).then(|| {
                let message = format!("{pods} has addresses for {room} pods");
                let help = format!("at most {room}, or a larger `pod_cidr`");
                Problem::new(path, message, Some(help))
            })
        }
        Cni::None => (cluster.node.max_pods > NODE_SHARE).then(|| {
            let message = format!("of {pods} Kubernetes gives a node {NODE_SHARE} addresses");
            let help = "it is enough where the network plugin divides the addresses itself";
            Problem::warning(path, message, help)
        }),
    }
}

/// The shortest and the longest prefix. kube-apiserver refuses services with more than 20 bits. kubeadm gives a node a
/// /24, of IPv6 a /64: one of these at least has to be in the pods' network, and at most 2^16.
fn prefixes(field: &str, is_ipv4: bool) -> (u8, u8) {
    match (field, is_ipv4) {
        ("pod_cidr", true) => (8, 24),
        ("pod_cidr", false) => (48, 64),
        (_, true) => (12, 28),
        (_, false) => (108, 124),
    }
}

/// Kubernetes takes no such address for a node, nor behind a service.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Each of one list with each of another.
fn pairs<'c>(some: &'c [Cidr], others: &'c [Cidr]) -> impl Iterator<Item = (&'c Cidr, &'c Cidr)> {
    some.iter()
        .flat_map(move |one| others.iter().map(move |other| (one, other)))
}
