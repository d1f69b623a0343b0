//! What the schema cannot say: how values have to fit together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Interface, Profile, addresses};
use crate::EffectiveFacts;
use crate::diagnostics::Problem;

/// Everything that does not fit together.
pub(crate) fn problems(profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, interface) in profile.network.interfaces.iter().enumerate() {
        problems.extend(interface_problems(n, interface));
        problems.extend(addresses::of_interface(n, interface));
    }
    problems.extend(addresses::twice(&profile.network.interfaces));
    let mut seen = BTreeMap::new();
    for (n, user) in profile.users.iter().enumerate() {
        if let Some(first) = seen.insert(user.name.as_str(), n) {
            problems.push(Problem::new(
                ["users", &n.to_string(), "name"],
                format!("`{}` is the name of users[{first}] already", user.name),
                Some("merge the two or choose another name".into()),
            ));
        }
        if user.ssh_keys.is_empty() && user.password_hash.is_none() {
            problems.push(Problem::new(
                ["users", &n.to_string()],
                format!("`{}` could never log in", user.name),
                Some("add `ssh_keys`, or `password_hash` for the console".into()),
            ));
        }
    }
    problems.extend(health_problems(profile));
    if let Some(kubernetes) = &profile.kubernetes {
        let cluster = kubernetes.cluster();
        problems.extend(addresses::inside_the_cluster(profile, &cluster));
        problems.extend(addresses::around_the_node(
            &profile.network.interfaces,
            &cluster,
        ));
        problems.extend(kubernetes.distribution().check(&cluster, &profile.network));
    }
    problems.extend(profile.vm.runtime().check(profile));
    problems
}

fn interface_problems(n: usize, interface: &Interface) -> Vec<Problem> {
    let index = n.to_string();
    let at = |field: &str| ["network", "interfaces", &index, field].map(str::to_owned);
    let mut problems = Vec::new();
    let matches = &interface.matches;
    if matches.name.is_none() && matches.mac.is_none() && matches.driver.is_none() {
        problems.push(Problem::new(
            at("match"),
            "this matches no interface in particular".into(),
            Some("give a name, mac or driver; `name: \"en*\"` is every Ethernet interface".into()),
        ));
    }
    if interface.addresses.is_empty() && interface.dhcp == Some(false) {
        problems.push(Problem::new(
            at("dhcp"),
            "without DHCP this interface has no address".into(),
            Some("add `addresses: [192.0.2.10/24]` or use DHCP".into()),
        ));
    }
    for (field, wanted) in [("IPv4", true), ("IPv6", false)] {
        if interface
            .gateways
            .iter()
            .filter(|g| g.is_ipv4() == wanted)
            .count()
            > 1
        {
            problems.push(Problem::new(
                at("gateways"),
                format!("more than one gateway for {field}"),
                None,
            ));
        }
    }
    for (g, gateway) in interface.gateways.iter().enumerate() {
        let path = ["network", "interfaces", &index, "gateways", &g.to_string()].map(str::to_owned);
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

fn health_problems(profile: &Profile) -> Vec<Problem> {
    let health = &profile.health;
    let mut problems = Vec::new();
    if health.deadline.duration().as_secs() < 10 {
        problems.push(Problem::new(
            ["health", "deadline"],
            format!("no machine is well after {}", health.deadline),
            Some("the shortest deadline is 10s; 10m is usual".into()),
        ));
    }
    if health.settle >= health.deadline {
        problems.push(Problem::new(
            ["health", "settle"],
            format!(
                "`settle` ({}) must be shorter than `deadline` ({})",
                health.settle, health.deadline
            ),
            None,
        ));
    }
    if profile.kubernetes.is_none() {
        let needs = |field: &str| {
            Problem::new(
                ["health", field],
                format!("`{field}` needs Kubernetes, and this profile has none"),
                Some("add `kubernetes:` or remove it".into()),
            )
        };
        if health.node_ready == Some(true) {
            problems.push(needs("node_ready"));
        }
        if !health.workloads.is_empty() {
            problems.push(needs("workloads"));
        }
    }
    problems
}

/// What a machine with these facts cannot be.
pub(crate) fn problems_with_facts(profile: &Profile, facts: EffectiveFacts<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(kubernetes) = &profile.kubernetes {
        let wanted = kubernetes.distribution().name();
        let present = facts.kubernetes().map(|k| k.distribution.as_str());
        if present != Some(wanted) {
            let (message, help) = not_in_image("Kubernetes distribution", wanted, present);
            problems.push(Problem::new(
                ["kubernetes", "distribution"],
                message,
                Some(help),
            ));
        }
    }
    let wanted = profile.vm.runtime().name();
    if wanted != "none" && !facts.vm().iter().any(|name| name == wanted) {
        let present: Vec<&str> = facts.vm().iter().map(String::as_str).collect();
        let present = (!present.is_empty()).then(|| present.join(", "));
        let (message, help) = not_in_image("VM runtime", wanted, present.as_deref());
        problems.push(Problem::new(["vm"], message, Some(help)));
    }
    problems
}

/// Message and help for something that the image does not have.
pub(crate) fn not_in_image(what: &str, wanted: &str, present: Option<&str>) -> (String, String) {
    match present {
        Some(present) => (
            format!("the {what} `{wanted}` is not in this image, which has `{present}`"),
            format!("write `{present}`, or use an image with `{wanted}`"),
        ),
        None => (
            format!("the {what} `{wanted}` is not in this image, which has none"),
            format!("use an image with `{wanted}`"),
        ),
    }
}
