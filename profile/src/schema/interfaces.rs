//! Which interfaces entries of the network take, and which ways lead out of the machine.

use std::net::IpAddr;

use super::{Interface, InterfaceGlob, Match};
use crate::diagnostics::Problem;
use crate::scalar::is_no_hosts;

fn at(n: usize, parts: &[&str]) -> Vec<String> {
    let index = n.to_string();
    let start = ["network", "interfaces", &index];
    start.iter().chain(parts).map(|&it| it.to_owned()).collect()
}

/// What is wrong with all of them together, and with each.
pub(super) fn problems(interfaces: &[Interface]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, interface) in interfaces.iter().enumerate() {
        problems.extend(of_match(n, &interface.matches));
        let mut before = interfaces.iter().take(n);
        if let Some(first) = before.position(|it| takes_all_of(&it.matches, &interface.matches)) {
            problems.push(Problem::new(
                at(n, &["match"]),
                format!("interfaces[{first}] takes all that this matches"),
                Some("the first that matches wins: put the narrower one first".into()),
            ));
        }
        problems.extend(of_one(n, interface));
        problems.extend(gateways(n, interface));
        for (family, wanted) in [("IPv4", true), ("IPv6", false)] {
            let has = |it: &Interface| it.gateways.iter().any(|g| g.is_ipv4() == wanted);
            if has(interface)
                && let Some(first) = interfaces.iter().take(n).position(has)
            {
                problems.push(Problem::warning(
                    at(n, &["gateways"]),
                    format!("interfaces[{first}] has a gateway for {family} already"),
                    "one of the two is used, by chance; keep the one that leads out",
                ));
            }
        }
    }
    problems
}

/// What no interface can be, or only one that is not matched.
fn of_match(n: usize, matches: &Match) -> Vec<Problem> {
    let mut problems = Vec::new();
    if matches.name.is_none() && matches.mac.is_none() && matches.driver.is_none() {
        problems.push(Problem::new(
            at(n, &["match"]),
            "this matches no interface in particular".into(),
            Some("give a name, mac or driver; `name: \"en*\"` is every Ethernet interface".into()),
        ));
    }
    let literal = matches.name.as_ref().filter(|it| !it.is_pattern());
    if let Some(name) = literal.map(InterfaceGlob::as_str) {
        let path = at(n, &["match", "name"]);
        if name == "lo" {
            let message = "the loopback is never matched".to_owned();
            let help = "name the interface that the cable is in, such as enp1s0".to_owned();
            problems.push(Problem::new(path, message, Some(help)));
        } else if name.len() > 15 || name.contains(':') {
            let message = format!("no interface is called {name}");
            let help =
                "a name has at most 15 characters and no colon; `ip link` shows them".to_owned();
            problems.push(Problem::new(path, message, Some(help)));
        } else if name.contains(['.', '@']) {
            let message = format!("{name} looks like a VLAN, and hardware alone is matched");
            let help = "a profile makes no VLANs; name the interface that the cable is in";
            problems.push(Problem::warning(path, message, help));
        }
    }
    if let Some(mac) = &matches.mac
        && !mac.is_of_a_card()
    {
        let message = format!("{mac} is the address of no interface");
        let help = "`ip link` shows them; the first pair is even, and not all are zero".to_owned();
        problems.push(Problem::new(at(n, &["match", "mac"]), message, Some(help)));
    }
    problems
}

/// Whether whatever fits `other` fits `one` too.
fn takes_all_of(one: &Match, other: &Match) -> bool {
    let glob = |one: &Option<InterfaceGlob>, other: &Option<InterfaceGlob>| match (one, other) {
        (None, _) => true,
        (Some(one), Some(other)) => one.takes_all_of(other),
        (Some(one), None) => one.as_str() == "*",
    };
    let mac = match (&one.mac, &other.mac) {
        (None, _) => true,
        (Some(one), Some(other)) => one.as_str().eq_ignore_ascii_case(other.as_str()),
        (Some(_), None) => false,
    };
    let says_something = one.name.is_some() || one.mac.is_some() || one.driver.is_some();
    says_something && mac && glob(&one.name, &other.name) && glob(&one.driver, &other.driver)
}

fn of_one(n: usize, interface: &Interface) -> Vec<Problem> {
    let mut problems = Vec::new();
    if interface.addresses.is_empty() && interface.dhcp == Some(false) {
        problems.push(Problem::new(
            at(n, &["dhcp"]),
            "without DHCP this interface has no address".into(),
            Some("add `addresses: [192.0.2.10/24]` or use DHCP".into()),
        ));
    }
    let matches = &interface.matches;
    let is_one = matches.mac.is_some() || matches.name.as_ref().is_some_and(|it| !it.is_pattern());
    if !interface.addresses.is_empty() && !is_one {
        problems.push(Problem::warning(
            at(n, &["addresses"]),
            "every interface that matches gets these addresses".into(),
            "match by `mac`, or by a `name` without `*` and `?`",
        ));
    }
    if interface.gateway_on_link
        && !interface
            .gateways
            .iter()
            .any(|it| interface.reaches_on_link(*it))
    {
        problems.push(Problem::warning(
            at(n, &["gateway_on_link"]),
            "no gateway of this interface is outside its networks".into(),
            "leave it out",
        ));
    }
    problems
}

fn gateways(n: usize, interface: &Interface) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (family, wanted) in [("IPv4", true), ("IPv6", false)] {
        let of_family = interface.gateways.iter().filter(|g| g.is_ipv4() == wanted);
        if of_family.count() > 1 {
            let message = format!("more than one gateway for {family}");
            problems.push(Problem::new(at(n, &["gateways"]), message, None));
        }
    }
    let somebodys = |it: &(usize, &IpAddr)| is_no_hosts(*it.1).is_none();
    for (g, gateway) in interface.gateways.iter().enumerate().filter(somebodys) {
        let path = at(n, &["gateways", &g.to_string()]);
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let reachable = interface.addresses.iter().any(|a| a.contains(*gateway))
            || link_local
            || interface.reaches_on_link(*gateway);
        if !reachable {
            let networks: Vec<String> = interface
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect();
            let help = if networks.is_empty() {
                "with DHCP the gateway comes with the lease: remove it".to_owned()
            } else {
                format!(
                    "the networks of this interface are {}; a gateway beside them is reached with `gateway_on_link: true`",
                    networks.join(", ")
                )
            };
            problems.push(Problem::new(
                path,
                format!("the gateway {gateway} is in no network of this interface"),
                Some(help),
            ));
        } else if interface.addresses.iter().any(|a| a.address() == *gateway) {
            problems.push(Problem::new(
                path,
                format!("{gateway} is this machine's own address"),
                None,
            ));
        }
    }
    problems
}
