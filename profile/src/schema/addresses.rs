//! Addresses of this machine that are well formed and cannot be meant: a network's own, one machine's twice, one that lies
//! inside a cluster and outside of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Cidr, Interface, Profile};
use crate::diagnostics::Problem;
use crate::kubernetes::{Cluster, Part};
use crate::scalar::is_no_hosts;

/// What no host can have: of IPv4, the first and the last address of a network of four or more.
pub(super) fn is_of_nobody(network: &Cidr, address: IpAddr) -> Option<&'static str> {
    if !network.contains(address) || !address.is_ipv4() || network.prefix() > 30 {
        return None;
    }
    if address == network.network().address() {
        Some("the network itself")
    } else if address == network.last_address() {
        Some("everybody in the network (broadcast)")
    } else {
        None
    }
}

/// What makes an address of a machine unusual, beyond what nobody has.
fn is_unusual(cidr: &Cidr) -> Option<(&'static str, &'static str)> {
    let (local, reserved, least) = match cidr.address() {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] >= 240, 8),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), false, 32),
    };
    if local {
        Some((
            "good for one link alone (link-local)",
            "routers do not pass it on; an address of the site's network is usual",
        ))
    } else if reserved {
        Some((
            "reserved (240.0.0.0/4)",
            "many routers drop it; an address of the site's network is usual",
        ))
    } else if cidr.prefix() < least {
        Some((
            "in a network larger than any link",
            "the number after the slash is the length of the network's prefix: 24 or 64 is usual",
        ))
    } else {
        None
    }
}

/// Where a field of an interface stands.
pub(super) fn path(n: usize, field: &str, index: usize) -> [String; 5] {
    [
        "network",
        "interfaces",
        &n.to_string(),
        field,
        &index.to_string(),
    ]
    .map(str::to_owned)
}

/// What is wrong with the addresses of one interface, the `n`th.
pub(super) fn of_interface(n: usize, interface: &Interface) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (i, cidr) in interface.addresses.iter().enumerate() {
        let (address, path) = (cidr.address(), path(n, "addresses", i));
        if let Some(whose) = is_of_nobody(cidr, address).or_else(|| is_no_hosts(address)) {
            let message = format!("{address} is {whose}, not the address of a machine");
            problems.push(Problem::new(path, message, None));
        } else if let Some((what, help)) = is_unusual(cidr) {
            problems.push(Problem::warning(path, format!("{cidr} is {what}"), help));
        }
    }
    problems
}

/// Addresses that are there twice, and networks that two interfaces have.
pub(super) fn twice(interfaces: &[Interface]) -> Vec<Problem> {
    let mut seen: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (n, interface) in interfaces.iter().enumerate() {
        for (i, cidr) in interface.addresses.iter().enumerate() {
            let path = path(n, "addresses", i);
            if let Some(first) = seen.insert(cidr.address(), n) {
                let message = format!(
                    "{} is an address of interfaces[{first}] already",
                    cidr.address()
                );
                problems.push(Problem::new(path, message, None));
                continue;
            }
            let before = interfaces.iter().take(n).enumerate();
            let mut networks =
                before.flat_map(|(m, it)| it.addresses.iter().map(move |it| (m, it)));
            if let Some((m, other)) = networks.find(|(_, other)| other.overlaps(cidr)) {
                let message =
                    format!("{cidr} shares addresses with {other}, a network of interfaces[{m}]");
                let help = "what is in both is reached by one of the two interfaces alone";
                problems.push(Problem::warning(path, message, help));
            }
        }
    }
    problems
}

/// Networks of interfaces that share addresses with a cluster on this machine.
pub(super) fn around_the_cluster(profile: &Profile, cluster: &Cluster) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, interface) in profile.network.interfaces.iter().enumerate() {
        for (i, cidr) in interface.addresses.iter().enumerate() {
            for overlap in cluster.overlaps(cidr) {
                problems.push(match overlap.part {
                    Part::Pods | Part::Services => Problem::new(
                        ["kubernetes", overlap.field()],
                        format!("{} overlaps the network {cidr} of this machine", overlap.network),
                        Some("addresses inside the cluster must be found nowhere else".into()),
                    ),
                    Part::Node => {
                        let own = overlap.network.address();
                        let address = cidr.address();
                        Problem::new(
                            path(n, "addresses", i),
                            format!("{cidr} holds {own}, which this machine has inside the cluster"),
                            Some(format!(
                                "say which address the node has: `kubernetes.node_address: {address}`"
                            )),
                        )
                    }
                });
            }
        }
    }
    problems
}

/// Networks of a cluster that belong to somebody on the Internet.
pub(super) fn of_others(cluster: &Cluster) -> Vec<Problem> {
    let pods = cluster.pods.iter().map(|it| ("pod_cidr", it));
    let services = cluster.services.iter().map(|it| ("service_cidr", it));
    let foreign = pods
        .chain(services)
        .filter(|(_, it)| !is_for_free_use(it.address()));
    foreign
        .filter(|(_, it)| is_no_hosts(it.address()).is_none())
        .map(|(field, network)| {
            let message = format!("{network} is not for private use");
            let help =
                "what has these addresses on the Internet cannot be reached; 10.42.0.0/16 is usual";
            Problem::warning(["kubernetes", field], message, help)
        })
        .collect()
}

/// Whether nobody on the Internet has it: RFC 1918, 6598, 2544, 5737, 1112. Of IPv6 nothing is said.
fn is_for_free_use(address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else {
        return true;
    };
    let [a, b, ..] = v4.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmarks = a == 198 && (b == 18 || b == 19);
    v4.is_private()
        || v4.is_link_local()
        || v4.is_documentation()
        || shared
        || benchmarks
        || a >= 240
}
