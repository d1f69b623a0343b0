//! Names of machines and of what is found by name.

use std::net::IpAddr;

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

/// Whether a text is neither an address nor a name of the DNS: a last part of digits alone is an address mistyped.
pub(crate) fn is_no_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    text.parse::<IpAddr>().is_err() && last.bytes().all(|b| b.is_ascii_digit())
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
    /// The address, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    pub(crate) fn literal(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}
