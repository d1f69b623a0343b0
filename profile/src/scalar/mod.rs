//! Values that are written as text but have a form of their own. Each knows the form, says in one
//! sentence what is wrong with a text that lacks it, and is a `format` in the published schema.

/// Serde by text and the JSON Schema of a type that has `FromStr<Err = String>` and `Display`.
macro_rules! text_form {
    ($name:ident, $format:literal, $example:literal) => {
        text_form!($name, {
            "type": "string", "format": $format, "examples": [$example]
        });
    };
    ($name:ident, $schema:tt) => {
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
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

/// What a type has that is its text.
macro_rules! is_its_text {
    ($name:ident, $check:expr) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl core::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.to_owned()))
            }
        }
    };
}

/// A type that is its text.
macro_rules! plain_text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $example:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        is_its_text!($name, $check);
        text_form!($name, $format, $example);
    };
}

/// The same for a value that is shown nowhere: `writeOnly` is the schema's word for that, and messages about a profile
/// leave it out (`crate::diagnostics`). `Debug` does not show it; `Display` does, because a profile is written by that.
macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident, $format:literal, $example:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);
        is_its_text!($name, $check);
        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
        text_form!($name, {
            "type": "string", "format": $format, "examples": [$example], "writeOnly": true
        });
    };
}

mod bundle_url;
mod certificate;
mod cidr;
mod duration;
mod interface;
mod name;
mod proxy;
mod ssh_key;
mod unit;
mod user;

use core::str::FromStr;
use std::net::IpAddr;

pub use bundle_url::BundleUrl;
pub use certificate::Certificates;
pub use cidr::Cidr;
pub(crate) use cidr::is_no_hosts;
pub use duration::Deadline;
pub use interface::{InterfaceGlob, MacAddress};
pub(crate) use name::is_no_name;
pub use name::{HostnameTemplate, ServerName};
pub use proxy::{ProxyExemption, ProxyUrl};
pub use ssh_key::SshKey;
pub use unit::UnitName;
pub use user::{PasswordHash, UserName};

/// A check of one form: what is wrong with a text, if anything.
type Form = fn(&str) -> Result<(), String>;

/// Every `format` that the schema uses, and its check.
const FORMS: &[(&str, Form)] = &[
    ("bundle-url", |s| BundleUrl::from_str(s).map(drop)),
    ("certificates", |s| Certificates::from_str(s).map(drop)),
    ("cidr", |s| Cidr::from_str(s).map(drop)),
    ("duration", |s| Deadline::from_str(s).map(drop)),
    ("hostname-template", |s| {
        HostnameTemplate::from_str(s).map(drop)
    }),
    ("interface-glob", |s| InterfaceGlob::from_str(s).map(drop)),
    ("mac-address", |s| MacAddress::from_str(s).map(drop)),
    ("password-hash", |s| PasswordHash::from_str(s).map(drop)),
    ("proxy-exemption", |s| ProxyExemption::from_str(s).map(drop)),
    ("proxy-url", |s| ProxyUrl::from_str(s).map(drop)),
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
