//! Addresses with a prefix length.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr(IpNet);

impl Cidr {
    pub(crate) fn v4(address: [u8; 4], prefix: u8) -> Self {
        Self(IpNet::new_assert(address.into(), prefix))
    }

    /// One address alone.
    #[must_use]
    pub fn single(address: IpAddr) -> Self {
        Self(address.into())
    }

    /// The address, host bits and all.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Number of leading bits that name the network.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }

    /// The network, without the host's bits.
    #[must_use]
    pub fn network(&self) -> Self {
        Self(self.0.trunc())
    }

    /// Whether no bit is set behind the prefix.
    #[must_use]
    pub fn is_network(&self) -> bool {
        *self == self.network()
    }

    /// The last address of the network: of IPv4, the one that reaches everybody in it.
    #[must_use]
    pub fn last_address(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether an address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether two networks share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

/// Why no host has this address, wherever it is.
pub(crate) fn is_no_hosts(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("no address");
    }
    if address.is_loopback() {
        return Some("every machine's own (loopback)");
    }
    if address.is_multicast() {
        return Some("a group of machines (multicast)");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("everybody (broadcast)"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("in no network (0.0.0.0/8)"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address written as one of IPv6")
        }
        _ => None,
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "an address with its prefix length is wanted, such as 192.0.2.10/24";
        let Some((address, prefix)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => format!("the prefix length is missing: {text}/24?"),
                Ok(IpAddr::V6(_)) => format!("the prefix length is missing: {text}/64?"),
                Err(_) => WANTED.to_owned(),
            });
        };
        let address: IpAddr = address.parse().map_err(|_| WANTED.to_owned())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        prefix
            .parse()
            .ok()
            .and_then(|prefix| IpNet::new(address, prefix).ok())
            .map(Self)
            .ok_or_else(|| format!("the prefix length must be a number from 0 to {most}"))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_form!(Cidr, "cidr", "192.0.2.10/24");
