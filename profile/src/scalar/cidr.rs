//! Addresses with a prefix length.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    pub(crate) const fn v4(address: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = address;
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d)),
            prefix,
        }
    }

    /// The address, host bits and all.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Number of leading bits that name the network.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The lowest address of the network, as a number aligned to the left of 128 bits.
    fn bits(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    fn mask(prefix: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
    }

    /// Whether no bit is set behind the prefix.
    #[must_use]
    pub fn is_network(&self) -> bool {
        Self::bits(self.address) & !Self::mask(self.prefix) == 0
    }

    /// Whether an address lies in this network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && (Self::bits(self.address) ^ Self::bits(address)) & Self::mask(self.prefix) == 0
    }

    /// Whether two networks share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let shorter = if self.prefix <= other.prefix {
            self
        } else {
            other
        };
        let longer = if self.prefix <= other.prefix {
            other
        } else {
            self
        };
        shorter.contains(longer.address)
    }

    /// The address `n` above the network's first, if it is in the network.
    #[must_use]
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let first = Self::bits(self.address) & Self::mask(self.prefix);
        let address = match self.address {
            IpAddr::V4(_) => {
                let base = u32::try_from(first >> 96).ok()?;
                IpAddr::V4(base.checked_add(n)?.into())
            }
            IpAddr::V6(_) => IpAddr::V6(first.checked_add(u128::from(n))?.into()),
        };
        self.contains(address).then_some(address)
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
        match prefix.parse::<u8>() {
            Ok(prefix) if prefix <= most => Ok(Self { address, prefix }),
            _ => Err(format!(
                "the prefix length must be a number from 0 to {most}"
            )),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

text_form!(Cidr, "cidr", "192.0.2.10/24");
