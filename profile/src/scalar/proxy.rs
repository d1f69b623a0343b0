//! The way to the world where there is no other: a proxy, and what is reached without it.

use core::str::FromStr;
use std::net::IpAddr;

use super::{Cidr, ServerName};

secret_text!(
    /// The address of a proxy: `http://[NAME:PASSWORD@]HOST:PORT`, or https. It may hold a password.
    ProxyUrl,
    "proxy-url",
    "http://proxy.example.com:3128",
    check_proxy_url
);

impl ProxyUrl {
    /// Whether it says who asks: then it is for root's eyes.
    pub(crate) fn has_credentials(&self) -> bool {
        self.as_str().contains('@')
    }
}

/// What reads it (systemd's environment files, Go, ureq) agrees on these characters; others are escaped, as in every
/// address.
fn check_proxy_url(text: &str) -> Result<(), String> {
    let wanted = || {
        "the address of a proxy is wanted, such as http://proxy.example.com:3128 or http://name:password@proxy.example.com:3128, at most 1024 characters"
            .to_owned()
    };
    let rest = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or_else(wanted)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (user, place),
        None => ("", rest),
    };
    let in_user = |b: u8| b.is_ascii_alphanumeric() || b":-._~%!+,=".contains(&b);
    if !user.bytes().all(in_user) || user.matches(':').count() > 1 {
        return Err(
            "a character in the proxy's name or password has to be escaped: `@` as %40, `/` as %2F, `:` as %3A, `#` as %23"
                .to_owned(),
        );
    }
    let (host, port) = place
        .rsplit_once(':')
        .ok_or("the port of the proxy is missing, such as :3128")?;
    let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => ServerName::from_str(host).is_ok(),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
    if !host || !port || text.len() > 1024 {
        return Err(wanted());
    }
    Ok(())
}

plain_text!(
    /// What is reached without the proxy: a network, an address, or a domain with all names in it.
    ProxyExemption,
    "proxy-exemption",
    "10.0.0.0/8",
    |text| {
        let is_network = Cidr::from_str(text).is_ok() || IpAddr::from_str(text).is_ok();
        if is_network || ServerName::from_str(text).is_ok() {
            return Ok(());
        }
        Err("a network (10.0.0.0/8), an address or a domain (example.com, for all names in it) is wanted".to_owned())
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        for good in [
            "http://proxy.example.com:3128",
            "https://proxy:443/",
            "http://192.0.2.1:8080",
            "http://[2001:db8::1]:3128",
            "http://me:p%40ss@proxy:3128",
            "http://DOMAIN%5Cme:secret@proxy:3128",
        ] {
            check_proxy_url(good).unwrap();
        }
        for (bad, says) in [
            ("proxy:3128", "http://"),
            ("socks5://proxy:1080", "http://"),
            ("http://proxy", "port"),
            ("http://proxy:+3128", "http://"),
            ("http://proxy:0", "http://"),
            ("http://proxy:3128/path", "http://"),
            ("http://me:pa/ss@proxy:3128", "escaped"),
            ("http://me:pa ss@proxy:3128", "escaped"),
            ("http://me:a:b@proxy:3128", "escaped"),
            ("http://me:\"x@proxy:3128", "escaped"),
            ("http://pro xy:3128", "http://"),
            ("http://:3128", "http://"),
            ("http://proxy:3128\n", "http://"),
        ] {
            let said = check_proxy_url(bad).unwrap_err();
            assert!(said.contains(says), "{bad}: {said}");
            assert!(!said.contains("pa/ss") && !said.contains("a:b@"), "{said}");
        }
        let url: ProxyUrl = "http://me:secret@proxy:3128".parse().unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn exemptions() {
        for good in [
            "10.0.0.0/8",
            "192.0.2.7",
            "fd00::/8",
            "example.com",
            "registry",
        ] {
            good.parse::<ProxyExemption>().unwrap();
        }
        for bad in ["", "*", ".example.com", "a,b", "http://x", "10.0.0.0/64"] {
            bad.parse::<ProxyExemption>().unwrap_err();
        }
    }
}
