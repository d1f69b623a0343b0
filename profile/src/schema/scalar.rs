//! Values that are written as text but have a form of their own. Each knows the form, says in one
//! sentence what is wrong with a text that lacks it, and is a `format` in the published schema.

use core::fmt;
use core::str::FromStr;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A check of one form: what is wrong with a text, if anything.
type Form = fn(&str) -> Result<(), String>;

/// Every `format` that the schema uses, and its check.
const FORMS: &[(&str, Form)] = &[
    ("bundle-url", |s| BundleUrl::from_str(s).map(drop)),
    ("cidr", |s| Cidr::from_str(s).map(drop)),
    ("duration", |s| Deadline::from_str(s).map(drop)),
    ("hostname-template", |s| {
        HostnameTemplate::from_str(s).map(drop)
    }),
    ("interface-glob", |s| InterfaceGlob::from_str(s).map(drop)),
    ("mac-address", |s| MacAddress::from_str(s).map(drop)),
    ("password-hash", |s| PasswordHash::from_str(s).map(drop)),
    ("server-name", |s| ServerName::from_str(s).map(drop)),
    ("ssh-key", |s| SshKey::from_str(s).map(drop)),
    ("systemd-unit", |s| UnitName::from_str(s).map(drop)),
    ("user-name", |s| UserName::from_str(s).map(drop)),
    ("ip", check_ip),
    ("ipv4", check_ip),
    ("ipv6", check_ip),
];

/// Checks `text` against a `format` of the schema. Formats that are not known say nothing.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), String> {
    FORMS
        .iter()
        .find(|(name, _)| *name == format)
        .map_or(Ok(()), |(_, check)| check(text))
}

fn check_ip(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| {
        let plain = text.split_once('/').map(|(address, _)| address);
        match plain.filter(|address| address.parse::<IpAddr>().is_ok()) {
            Some(address) => format!("only the address is wanted here: {address}"),
            None => "an IP address is wanted, such as 192.0.2.1 or 2001:db8::1".to_owned(),
        }
    })
}

/// Serde by text and the JSON Schema of a type that has `FromStr<Err = String>` and `Display`.
macro_rules! text_form {
    ($name:ident, $format:literal, $example:literal) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "examples": [$example] })
            }
        }
    };
}

/// A type that is its text.
macro_rules! plain_text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $example:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }
        text_form!($name, $format, $example);
    };
}

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

/// A span of time, written `90s`, `10m`, `1h`, `1h30m`. From 0 s to 24 h, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Deadline(u32);

impl Deadline {
    const MAX: u32 = 24 * 60 * 60;

    /// So many seconds, at most 24 hours of them.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(if seconds > Self::MAX {
            Self::MAX
        } else {
            seconds
        })
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a time span is wanted, such as 90s, 10m or 1h30m".to_owned();
        let mut total = 0_u32;
        let mut number: Option<u32> = None;
        let mut last_unit = u32::MAX;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let so_far = number
                    .unwrap_or(0)
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(digit));
                number = Some(so_far.ok_or_else(wrong)?);
                continue;
            }
            let unit = match c {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(wrong()),
            };
            if unit >= last_unit {
                return Err(wrong());
            }
            last_unit = unit;
            let part = number
                .take()
                .ok_or_else(wrong)?
                .checked_mul(unit)
                .ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
        }
        if text.is_empty() || number.is_some() {
            return Err(wrong());
        }
        if total > Self::MAX {
            return Err("a time span of at most 24h is wanted".to_owned());
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 && s < 3600 => write!(f, "{}m", s / 60),
            s if s < 3600 => write!(f, "{s}s"),
            s => write!(f, "{}h{}m{}s", s / 3600, s % 3600 / 60, s % 60),
        }
    }
}

text_form!(Deadline, "duration", "10m");

plain_text!(
    /// The address of a bundle: http:// or https://, without user and password.
    BundleUrl,
    "bundle-url",
    "https://images.example.com/edge/stable.spb",
    check_bundle_url
);

fn check_bundle_url(text: &str) -> Result<(), String> {
    let wanted =
        || "an http:// or https:// address is wanted, at most 2048 printable characters".to_owned();
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(wanted)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port),
        _ => (authority, "80"),
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    // A password with a '/', '?' or '#' in it ends the authority too early, and looks like a port.
    if authority.contains('@') || (!is_port && rest.contains('@')) {
        return Err("an address without user and password is wanted".to_owned());
    }
    if host.is_empty()
        || !is_port
        || text.len() > 2048
        || !text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(wanted());
    }
    Ok(())
}

plain_text!(
    /// A host name in which `{machine-id}` and `{machine-id:N}` stand for digits of the machine id.
    HostnameTemplate,
    "hostname-template",
    "edge-{machine-id:8}",
    |text| {
        let sample = expand_hostname(text, "0123456789abcdef0123456789abcdef")?;
        check_hostname(&sample)
    }
);

impl Default for HostnameTemplate {
    fn default() -> Self {
        Self("node-{machine-id:8}".to_owned())
    }
}

impl HostnameTemplate {
    /// The host name of the machine with this id, if the result is one.
    #[must_use]
    pub fn expand(&self, machine_id: &str) -> Option<String> {
        let name = expand_hostname(&self.0, machine_id).ok()?;
        check_hostname(&name).ok().map(|()| name)
    }
}

fn expand_hostname(template: &str, machine_id: &str) -> Result<String, String> {
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        name.push_str(before);
        let (inside, behind) = after
            .split_once('}')
            .ok_or_else(|| "the `{` is never closed".to_owned())?;
        let count = match inside.strip_prefix("machine-id") {
            Some("") => Some(32),
            Some(count) => count
                .strip_prefix(':')
                .and_then(|n| n.parse::<usize>().ok()),
            None => None,
        };
        let digits = count
            .filter(|count| (1..=32).contains(count))
            .and_then(|count| machine_id.get(..count))
            .ok_or_else(|| {
                "only {machine-id} and {machine-id:N}, N from 1 to 32, can stand in braces"
                    .to_owned()
            })?;
        name.push_str(digits);
        rest = behind;
    }
    name.push_str(rest);
    Ok(name)
}

/// RFC 1123 labels, lower case, as Kubernetes wants node names; 63 bytes, as the kernel wants.
fn check_hostname(name: &str) -> Result<(), String> {
    if name.len() > 63 {
        return Err(format!(
            "a host name has at most 63 characters, this one has {}",
            name.len()
        ));
    }
    if !name.split('.').all(is_label) {
        return Err(
            "a host name consists of lower-case letters, digits and hyphens, in parts \
                    separated by dots that neither begin nor end with a hyphen"
                .to_owned(),
        );
    }
    if name.parse::<IpAddr>().is_ok() {
        return Err("a host name cannot be an IP address".to_owned());
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

plain_text!(
    /// A name in the DNS (or of a Kubernetes object), or an IP address.
    ServerName,
    "server-name",
    "ntp.example.org",
    |text| {
        let name = text.len() <= 253 && text.split('.').all(is_label);
        if name || text.parse::<IpAddr>().is_ok() {
            Ok(())
        } else {
            Err("a DNS name in lower case or an IP address is wanted".to_owned())
        }
    }
);

impl ServerName {
    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

plain_text!(
    /// A pattern for interface or driver names.
    InterfaceGlob,
    "interface-glob",
    "enp1s0",
    |text| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@*?".contains(&b);
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(fits) {
            Ok(())
        } else {
            Err("a name such as enp1s0 is wanted; `*` and `?` stand for any characters".to_owned())
        }
    }
);

plain_text!(
    /// A hardware address.
    MacAddress,
    "mac-address",
    "52:54:00:12:34:56",
    |text| {
        let pair = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
        if text.split(':').count() == 6 && text.split(':').all(pair) {
            Ok(())
        } else {
            Err("a hardware address is wanted, such as 52:54:00:12:34:56".to_owned())
        }
    }
);

plain_text!(
    /// A login name.
    UserName,
    "user-name",
    "admin",
    |text| {
        let first = |b: u8| b.is_ascii_lowercase() || b == b'_';
        let other = |b: u8| first(b) || b.is_ascii_digit() || b == b'-';
        let mut bytes = text.bytes();
        if !bytes.next().is_some_and(first) || !bytes.all(other) || text.len() > 31 {
            return Err("a user name begins with a lower-case letter and has at most 31 of \
                        a-z, 0-9, `-` and `_`"
                .to_owned());
        }
        if super::users::is_reserved(text) {
            return Err(format!(
                "`{text}` belongs to the system; choose another name and set `admin: true` if this \
                 user is to administer the machine"
            ));
        }
        Ok(())
    }
);

plain_text!(
    /// A line of authorized_keys.
    SshKey,
    "ssh-key",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvb3R5IGZvciBhIHN0ZXJucG9zdCBwcm9maWxl me@example",
    super::users::check_ssh_key
);

/// A hashed password, as crypt(5) writes it. Neither shown by `Debug` nor by messages.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash(String);

impl PasswordHash {
    /// The hash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PasswordHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        super::users::check_password_hash(text).map(|()| Self(text.to_owned()))
    }
}

text_form!(PasswordHash, "password-hash", "$y$j9T$…");

plain_text!(
    /// The name of a systemd unit, with its suffix.
    UnitName,
    "systemd-unit",
    "chrony.service",
    |text| {
        const SUFFIXES: [&str; 8] =
            [".service", ".socket", ".target", ".mount", ".timer", ".path", ".swap", ".automount"];
        let fits = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if text.len() > 255 || !text.bytes().all(fits) || text.starts_with('.') {
            return Err("a unit name is wanted, such as sshd.service".to_owned());
        }
        if SUFFIXES.iter().any(|suffix| text.ends_with(suffix)) {
            Ok(())
        } else {
            Err(format!("a unit name needs its suffix: {text}.service?"))
        }
    }
);
