//! Addresses that are well formed and cannot be meant: a network's own, one machine's twice, one that lies inside a cluster
//! and outside of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Cidr, Interface, Profile};
use crate::diagnostics::Problem;
use crate::kubernetes::Cluster;

/// What no host can have: of IPv4, the first and the last address of a network of four or more.
fn is_of_nobody(network: &Cidr, address: IpAddr) -> Option<&'static str> {
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

/// Why no host has this address, wherever it is.
fn is_no_hosts(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("no address")
    } else if address.is_loopback() {
        Some("every machine's own (loopback)")
    } else if address.is_multicast() {
        Some("a group of machines (multicast)")
    } else {
        None
    }
}

fn path(n: usize, field: &str, index: usize) -> [String; 5] {
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
        let address = cidr.address();
        if let Some(whose) = is_of_nobody(cidr, address).or_else(|| is_no_hosts(address)) {
            let message = format!("{address} is {whose}, not the address of a machine");
            problems.push(Problem::new(path(n, "addresses", i), message, None));
        }
    }
    for (g, gateway) in interface.gateways.iter().enumerate() {
        let mut networks = interface.addresses.iter();
        let whose = networks.find_map(|it| is_of_nobody(it, *gateway));
        if let Some(whose) = whose.or_else(|| is_no_hosts(*gateway)) {
            let message = format!("{gateway} is {whose}, not the address of a gateway");
            problems.push(Problem::new(path(n, "gateways", g), message, None));
        }
    }
    problems
}

/// Addresses that two interfaces have.
pub(super) fn twice(interfaces: &[Interface]) -> Vec<Problem> {
    let mut seen: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    for (n, interface) in interfaces.iter().enumerate() {
        for (i, cidr) in interface.addresses.iter().enumerate() {
            if let Some(first) = seen.insert(cidr.address(), n) {
                let message = format!(
                    "{} is an address of interfaces[{first}] already",
                    cidr.address()
                );
                problems.push(Problem::new(path(n, "addresses", i), message, None));
            }
        }
    }
    problems
}

/// Servers and gateways that lie where only pods and services are: the machine would look for them in the cluster.
/// Interfaces' own networks are looked at by the distribution's check.
pub(super) fn inside_the_cluster(profile: &Profile, cluster: &Cluster) -> Vec<Problem> {
    let inside = |address: IpAddr| {
        let pods = cluster.pods.iter().map(|it| ("pods", it));
        let services = cluster.services.iter().map(|it| ("services", it));
        let found = pods.chain(services).find(|(_, it)| it.contains(address));
        match found {
            Some((whose, network)) => Some(format!("the cluster's {whose} ({network})")),
            None if cluster.node.address.is_none() && cluster.endpoint.address == address => {
                Some("this machine, which has it inside the cluster".to_owned())
            }
            None => None,
        }
    };
    let mut problems = Vec::new();
    let mut look = |path: Vec<String>, what: &str, address: IpAddr| {
        if let Some(whose) = inside(address) {
            let help = "choose other networks under `kubernetes`, or another address".to_owned();
            let message = format!("{what} {address} is an address of {whose}");
            problems.push(Problem {
                path,
                message,
                help: Some(help),
            });
        }
    };
    let network = &profile.network;
    for (i, server) in network.dns.iter().enumerate() {
        look(
            ["network", "dns", &i.to_string()].map(str::to_owned).into(),
            "the DNS server",
            *server,
        );
    }
    for (i, server) in profile.time.servers.iter().enumerate() {
        if let Ok(address) = server.as_str().parse() {
            look(
                ["time", "servers", &i.to_string()]
                    .map(str::to_owned)
                    .into(),
                "the time server",
                address,
            );
        }
    }
    for (n, interface) in network.interfaces.iter().enumerate() {
        for (i, server) in interface.dns.iter().enumerate() {
            look(path(n, "dns", i).into(), "the DNS server", *server);
        }
        for (i, gateway) in interface.gateways.iter().enumerate() {
            look(path(n, "gateways", i).into(), "the gateway", *gateway);
        }
    }
    problems
}

/// Networks of interfaces that hold the address which a machine has inside its cluster alone.
pub(super) fn around_the_node(interfaces: &[Interface], cluster: &Cluster) -> Vec<Problem> {
    let own = cluster.endpoint.address;
    let mut problems = Vec::new();
    for (n, interface) in interfaces.iter().enumerate() {
        for (i, cidr) in interface.addresses.iter().enumerate() {
            if cluster.node.address.is_none() && cidr.contains(own) {
                let message =
                    format!("{cidr} holds {own}, which this machine has inside the cluster");
                let help = format!(
                    "say which address the node has: `kubernetes.node_address: {}`",
                    cidr.address()
                );
                problems.push(Problem::new(path(n, "addresses", i), message, Some(help)));
            }
        }
    }
    problems
}
