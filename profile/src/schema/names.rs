//! Names of machines and domains: what is none, what is named twice, what nobody can be asked for, what no certificate
//! can hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Profile, ServerName};
use crate::diagnostics::Problem;
use crate::kubernetes::{Cluster, Part};
use crate::scalar::{is_no_hosts, is_no_name};

/// How long the name of a namespace may be: a label of the DNS.
const LABEL: usize = 63;

fn entry(parts: [&str; 2], n: usize) -> [String; 3] {
    [parts[0], parts[1], &n.to_string()].map(str::to_owned)
}

/// Of each of a list, whether an earlier one is the same.
pub(super) fn repeats<T: Ord>(list: impl IntoIterator<Item = T>) -> Vec<bool> {
    let mut seen = BTreeSet::new();
    list.into_iter().map(|it| !seen.insert(it)).collect()
}

fn no_name(path: impl IntoIterator<Item = String>, name: &str) -> Problem {
    Problem::new(
        path,
        format!("`{name}` is neither an address nor a name"),
        Some("an address has four numbers from 0 to 255, and a name ends in letters".into()),
    )
}

/// Names outside of a cluster.
pub(super) fn problems(profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let hostname = profile.hostname.to_string();
    if hostname.split('.').next() == Some("localhost") {
        problems.push(Problem::warning(
            ["hostname"],
            "`localhost` is what every machine calls itself".into(),
            "choose a name, or `edge-{machine-id:8}`",
        ));
    }
    let search = &profile.network.search;
    for (n, (domain, is_twice)) in search.iter().zip(repeats(search)).enumerate() {
        let path = entry(["network", "search"], n);
        if domain.address().is_some() {
            let message = format!("`{domain}` is an address, not a domain");
            problems.push(Problem::new(path, message, None));
        } else if is_no_name(domain.as_str()) {
            problems.push(no_name(path, domain.as_str()));
        } else if is_twice {
            let message = format!("`{domain}` is named twice");
            problems.push(Problem::warning(path, message, "keep one of them"));
        }
    }
    let servers = &profile.time.servers;
    for (n, (name, is_twice)) in servers.iter().zip(repeats(servers)).enumerate() {
        let path = entry(["time", "servers"], n);
        if name.address().is_none() && is_twice {
            let message = format!("`{name}` is named twice");
            problems.push(Problem::warning(path, message, "keep one of them"));
        } else {
            problems.extend(of_server(
                profile,
                path.into(),
                "time server",
                name.as_str(),
            ));
        }
    }
    if let Some(bundle) = &profile.recovery.install {
        let path = ["recovery", "install"].map(str::to_owned);
        let (host, what) = (bundle.host(), "server of a bundle");
        let address = host.parse::<IpAddr>().ok();
        if address.is_some_and(|it| it.is_loopback()) {
            problems.push(is_itself(path.into(), what, host));
        } else if let Some(whose) = address.and_then(is_no_hosts) {
            let message = format!("{host} is {whose}, not the address of a {what}");
            problems.push(Problem::new(path, message, None));
        } else {
            problems.extend(of_server(profile, path.into(), what, host));
        }
    }
    problems
}

/// Something that was put on this machine may answer there.
fn is_itself(path: Vec<String>, what: &str, name: &str) -> Problem {
    let message = format!("the {what} `{name}` is this machine itself");
    Problem::warning(path, message, "name another one, or leave it out")
}

/// What is wrong with the name of a server, if it is one.
fn of_server(profile: &Profile, path: Vec<String>, what: &str, name: &str) -> Option<Problem> {
    let network = &profile.network;
    let asks = network.interfaces.iter().any(|it| !it.dns.is_empty()) || !network.dns.is_empty();
    if name.parse::<IpAddr>().is_ok() {
        None
    } else if is_no_name(name) {
        Some(no_name(path, name))
    } else if name == "localhost" {
        Some(is_itself(path, what, name))
    } else if network.is_fixed() && !asks {
        let message = format!("no DNS server is named that knows `{name}`");
        let help = "add `dns` to the network, or name the server by its address";
        Some(Problem::warning(path, message, help))
    } else {
        None
    }
}

/// Names in a cluster, and those under which it is found.
pub(super) fn of_cluster(profile: &Profile, cluster: &Cluster) -> Vec<Problem> {
    let names = &cluster.endpoint.names;
    let mut problems: Vec<_> = names
        .iter()
        .zip(repeats(names))
        .enumerate()
        .filter_map(|(n, (name, is_twice))| {
            let path = entry(["kubernetes", "api_names"], n);
            if is_twice {
                let message = format!("`{name}` is named twice");
                return Some(Problem::warning(path, message, "keep one of them"));
            }
            of_certificate(path, name, cluster)
        })
        .collect();
    let domain = &cluster.names.domain;
    let path = ["kubernetes", "dns_domain"];
    if domain.address().is_some() {
        let message = format!("`{domain}` is an address, not a domain");
        problems.push(Problem::new(path, message, None));
    }
    let holds = |wide: &ServerName, narrow: &ServerName| {
        let (wide, narrow) = (wide.as_str(), narrow.as_str());
        narrow
            .strip_suffix(wide)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let mut search = profile.network.search.iter();
    if let Some(site) = search.find(|it| holds(domain, it)) {
        let message = format!("`{site}`, which the machine searches, is a domain of the cluster");
        let help = "pods do not find the site's names in it; `cluster.local` is usual";
        problems.push(Problem::warning(path, message, help));
    }
    problems.extend(of_workloads(profile));
    problems
}

/// Names and addresses that the certificate of the API server is to be good for.
fn of_certificate(path: [String; 3], name: &ServerName, cluster: &Cluster) -> Option<Problem> {
    let is_there =
        |it: &str| it == "localhost" || it == "kubernetes" || it.starts_with("kubernetes.default");
    let anyway = |path| {
        let message = format!("`{name}` is in the certificate anyway");
        Some(Problem::warning(path, message, "leave it out"))
    };
    let Some(address) = name.address() else {
        return match name.as_str() {
            it if is_no_name(it) => Some(no_name(path, it)),
            it if is_there(it) => anyway(path),
            _ => None,
        };
    };
    if address.is_loopback() || address == cluster.endpoint.address {
        return anyway(path);
    }
    if let Some(whose) = is_no_hosts(address) {
        let message = format!("{address} is {whose}, not the address of an API server");
        return Some(Problem::new(path, message, None));
    }
    let overlaps = cluster.overlaps(&super::Cidr::single(address));
    let overlap = overlaps.iter().find(|it| it.part != Part::Node)?;
    let message = format!("{address} is an address of {overlap}");
    let help = "from outside it is reached only where something translates it";
    Some(Problem::warning(path, message, help))
}

fn of_workloads(profile: &Profile) -> Vec<Problem> {
    let workloads = &profile.health.workloads;
    let mut problems = Vec::new();
    let keys = workloads
        .iter()
        .map(|it| (it.kind, &it.namespace, &it.name));
    for (n, (workload, is_twice)) in workloads.iter().zip(repeats(keys)).enumerate() {
        let at = |field: &str| ["health", "workloads", &n.to_string(), field].map(str::to_owned);
        let (name, namespace) = (workload.name.as_str(), workload.namespace.as_str());
        if namespace.contains(['.', ':']) || namespace.len() > LABEL {
            let message = format!("no namespace is called `{namespace}`");
            let help = "its name has letters, digits and hyphens, at most 63".to_owned();
            problems.push(Problem::new(at("namespace"), message, Some(help)));
        } else if name.contains(':') {
            let message = format!("no workload is called `{name}`");
            problems.push(Problem::new(at("name"), message, None));
        } else if is_twice {
            let message = format!("`{name}` is named twice");
            problems.push(Problem::warning(at("name"), message, "keep one of them"));
        }
    }
    problems
}
