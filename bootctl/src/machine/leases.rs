//! What came to this machine by DHCP, as systemd-networkd keeps it: `/run/systemd/netif/leases/INDEX`, a file for each
//! interface that has a lease of IPv4. Source: sd_dhcp_lease_save in systemd.
//!
//! Written by a server of the site's: any line may be missing or garbage, and says nothing then.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use profile::schema::Cidr;

use crate::os::paths::Paths;

/// An address or a network that somebody else chose for this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// The interface that it came by.
    pub interface: String,
    /// What it is: `the gateway`.
    pub what: &'static str,
    /// A single address is a network of one.
    pub network: Cidr,
}

/// All of it, in no particular order.
pub fn given(paths: &Paths) -> Vec<Given> {
    let leases = fs::read_dir(paths.at("/run/systemd/netif/leases"));
    let mut all = Vec::new();
    for entry in leases.into_iter().flatten().flatten() {
        let index = entry.file_name().to_string_lossy().into_owned();
        let Ok(text) = small_file::read_to_string(&entry.path()) else {
            continue;
        };
        let interface = name(paths, &index).unwrap_or_else(|| format!("interface {index}"));
        all.extend(of_lease(&text).map(|(what, network)| Given {
            interface: interface.clone(),
            what,
            network,
        }));
    }
    all
}

/// The name of the interface with this index.
fn name(paths: &Paths, index: &str) -> Option<String> {
    let is_it =
        |path: &Path| fs::read_to_string(path.join("ifindex")).is_ok_and(|it| it.trim() == index);
    let mut all = fs::read_dir(paths.at("/sys/class/net")).ok()?.flatten();
    let found = all.find(|it| is_it(&it.path()))?;
    Some(found.file_name().to_string_lossy().into_owned())
}

fn of_lease(text: &str) -> impl Iterator<Item = (&'static str, Cidr)> {
    let values = |key: &str| -> Vec<Ipv4Addr> {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        let found = lines
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value);
        found
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect()
    };
    let prefix = values("NETMASK")
        .first()
        .map_or(32, |it| it.to_bits().leading_ones());
    let lease = values("ADDRESS")
        .first()
        .and_then(|address| format!("{address}/{prefix}").parse().ok())
        .map(|network| ("the network", network));
    let servers = [
        ("the gateway", "ROUTER"),
        ("the DNS server", "DNS"),
        ("the time server", "NTP"),
    ];
    let servers = servers.map(|(what, key)| (what, values(key)));
    let single = |it: Ipv4Addr| Cidr::single(IpAddr::V4(it));
    let servers = servers
        .into_iter()
        .flat_map(move |(what, addresses)| addresses.into_iter().map(move |it| (what, single(it))));
    lease.into_iter().chain(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd-networkd wrote it.
    const LEASE: &str = "\
# This is private data. Do not parse.
ADDRESS=10.44.0.188
NETMASK=255.255.255.0
ROUTER=10.44.0.1
SERVER_ADDRESS=10.44.0.1
T1=1800
T2=3150
LIFETIME=3600
DNS=10.43.0.10 9.9.9.9
NTP=10.42.7.1
TIMEZONE=Etc/UTC
CLIENTID=ff874f6a7300020000ab110033bdebf95e192c
";

    #[test]
    fn a_lease_says_network_gateway_and_servers() {
        let all: Vec<_> = of_lease(LEASE)
            .map(|(what, it)| format!("{what} {it}"))
            .collect();
        assert_eq!(
            all,
            [
                "the network 10.44.0.188/24",
                "the gateway 10.44.0.1/32",
                "the DNS server 10.43.0.10/32",
                "the DNS server 9.9.9.9/32",
                "the time server 10.42.7.1/32",
            ]
        );
    }

    #[test]
    fn what_is_missing_or_garbage_says_nothing() {
        for text in [
            "",
            "ADDRESS=\nROUTER",
            "ADDRESS=ten\nDNS= , ;\nROUTER=2001:db8::1\n",
        ] {
            assert_eq!(of_lease(text).count(), 0, "{text}");
        }
        let all: Vec<_> = of_lease("ADDRESS=192.0.2.5\n").collect();
        assert_eq!(all, [("the network", "192.0.2.5/32".parse().unwrap())]);
    }
}
