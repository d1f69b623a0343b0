//! Gateways and servers that a profile names by their address: what cannot be one, what is in the cluster, what no route
//! leads to.

use std::net::IpAddr;

use super::addresses::{is_of_nobody, path};
use super::names::repeats;
use super::{Cidr, Profile};
use crate::diagnostics::Problem;
use crate::kubernetes::Cluster;
use crate::scalar::is_no_hosts;

/// What a machine looks for at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Gateway,
    Dns,
    Time,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Dns => "DNS server",
            Self::Time => "time server",
        }
    }
}

/// Somebody on the network, and where the profile says so.
struct Server {
    path: Vec<String>,
    role: Role,
    address: IpAddr,
}

impl Server {
    /// The list that it stands in.
    fn list(&self) -> &[String] {
        self.path.split_last().map_or(&[], |(_, list)| list)
    }
}

/// All of them, those of one list side by side.
fn all(profile: &Profile) -> Vec<Server> {
    let listed = |parts: [&str; 2], i: usize| -> Vec<String> {
        [parts[0], parts[1], &i.to_string()]
            .map(str::to_owned)
            .into()
    };
    let server = |path, role, address| Server {
        path,
        role,
        address,
    };
    let network = &profile.network;
    let dns = network.dns.iter().enumerate();
    let mut all: Vec<_> = dns
        .map(|(i, it)| server(listed(["network", "dns"], i), Role::Dns, *it))
        .collect();
    for (i, name) in profile.time.servers.iter().enumerate() {
        if let Ok(address) = name.as_str().parse() {
            all.push(server(listed(["time", "servers"], i), Role::Time, address));
        }
    }
    for (n, interface) in network.interfaces.iter().enumerate() {
        for (i, it) in interface.dns.iter().enumerate() {
            all.push(server(path(n, "dns", i).into(), Role::Dns, *it));
        }
        for (i, it) in interface.gateways.iter().enumerate() {
            all.push(server(path(n, "gateways", i).into(), Role::Gateway, *it));
        }
    }
    all
}

/// Servers at addresses that no server has, and at this machine's own.
pub(super) fn problems(profile: &Profile) -> Vec<Problem> {
    let interfaces = &profile.network.interfaces;
    let networks: Vec<&Cidr> = interfaces.iter().flat_map(|it| &it.addresses).collect();
    let node = profile
        .kubernetes
        .as_ref()
        .and_then(|it| it.cluster().node.address);
    let is_own =
        |address| node == Some(address) || networks.iter().any(|it| it.address() == address);
    let has_way = interfaces
        .iter()
        .any(|it| it.gateways.iter().any(IpAddr::is_ipv4));
    // Routes of IPv6 come from routers.
    let has_route = |address: IpAddr| {
        address.is_ipv6() || has_way || networks.iter().any(|it| it.contains(address))
    };
    let mut problems = Vec::new();
    let all = all(profile);
    let is_twice = repeats(all.iter().map(|it| (it.list(), it.address)));
    for (server, is_twice) in all.iter().zip(is_twice) {
        let Server {
            path,
            role,
            address,
        } = server;
        let (path, what) = (path.clone(), role.name());
        let mut of_nobody = networks.iter().filter_map(|it| is_of_nobody(it, *address));
        if *role != Role::Gateway && address.is_loopback() {
            problems.push(on_this_machine(path, *role, *address));
        } else if let Some(whose) = of_nobody.next().or_else(|| is_no_hosts(*address)) {
            let message = format!("{address} is {whose}, not the address of a {what}");
            problems.push(Problem::new(path, message, None));
        } else if is_lost_without_a_link(server) {
            let message = format!("the {what} {address} is good for one link alone (link-local)");
            let help = "name it in `dns` of its interface, or by another address".to_owned();
            problems.push(Problem::new(path, message, Some(help)));
        } else if *role != Role::Gateway && is_own(*address) {
            let message = format!("the {what} {address} is this machine itself");
            problems.push(Problem::warning(
                path,
                message,
                "name another one, or leave it out",
            ));
        } else if is_twice {
            let message = format!("the {what} {address} is named twice");
            problems.push(Problem::warning(path, message, "keep one of them"));
        } else if profile.network.is_fixed() && *role != Role::Gateway && !has_route(*address) {
            let message = format!("no route leads to the {what} {address}");
            let help = "add `gateways` to an interface, or name one in a network of this machine";
            problems.push(Problem::warning(path, message, help));
        }
    }
    problems
}

/// Whether it is an address of a link, and nobody says of which.
fn is_lost_without_a_link(server: &Server) -> bool {
    let is_link_local = matches!(server.address, IpAddr::V6(it) if it.is_unicast_link_local());
    let interfaces = server.path.get(1).is_some_and(|it| it == "interfaces");
    is_link_local && !interfaces
}

/// A server on the loopback: something on this machine may answer there, but for what would ask itself.
fn on_this_machine(path: Vec<String>, role: Role, address: IpAddr) -> Problem {
    let what = role.name();
    let resolved = ["127.0.0.53", "127.0.0.54"].map(|it| it.parse() == Ok(address));
    if role == Role::Dns && resolved.contains(&true) {
        let message = format!("{address} is this machine's own resolver, which would ask itself");
        let help = "name the servers that it is to ask".to_owned();
        return Problem::new(path, message, Some(help));
    }
    let message = format!("the {what} {address} is this machine itself");
    Problem::warning(
        path,
        message,
        "the image brings none; name another one, or leave it out",
    )
}

/// Servers and gateways that lie where only pods and services are: the machine would look for them in the cluster.
pub(super) fn inside_the_cluster(profile: &Profile, cluster: &Cluster) -> Vec<Problem> {
    let all = all(profile).into_iter();
    all.filter_map(|server| {
        let overlap = cluster
            .overlaps(&Cidr::single(server.address))
            .into_iter()
            .next()?;
        let what = server.role.name();
        Some(Problem::new(
            server.path,
            format!("the {what} {} is an address of {overlap}", server.address),
            Some("choose other networks under `kubernetes`, or another address".into()),
        ))
    })
    .collect()
}
