//! How servers are reached: the proxy, and the authorities of the site. Sources: systemd.exec(5) "EnvironmentFile";
//! golang.org/x/net/http/httpproxy; crypto/x509 of Go, which reads every file in /etc/ssl/certs.

use crate::contribution::{HEADER, file};
use crate::schema::Proxy;
use crate::{File, Profile, When};

/// The proxy, as the environment that programs look for it in. It may hold a password: root alone reads it.
pub const PROXY_SETTINGS: &str = "/etc/sternpost/proxy.env";
/// The authorities of the site, beside the store of the image.
pub const SITE_AUTHORITIES: &str = "/etc/ssl/certs/50-sternpost-site.pem";

pub(super) fn render(profile: &Profile, hostname: &str, files: &mut Vec<File>) {
    let network = &profile.network;
    if !network.authorities.is_empty() {
        let certificates = network.authorities.iter().map(|it| it.as_str().trim());
        let text: String = certificates.map(|it| format!("{it}\n")).collect();
        files.push(file(SITE_AUTHORITIES, text, When::Early));
    }
    if let Some(proxy) = &network.proxy {
        files.push(File {
            mode: 0o600,
            ..file(
                PROXY_SETTINGS,
                settings(profile, proxy, hostname),
                When::Early,
            )
        });
    }
}

fn settings(profile: &Profile, proxy: &Proxy, hostname: &str) -> String {
    let mut direct: Vec<String> = ["localhost", "127.0.0.0/8", "::1", hostname]
        .map(str::to_owned)
        .into();
    if let Some(kubernetes) = &profile.kubernetes {
        let cluster = kubernetes.cluster();
        let networks = cluster.pods.iter().chain(&cluster.services);
        direct.extend(networks.map(ToString::to_string));
        let node = cluster.node.address.unwrap_or(cluster.endpoint.address);
        direct.extend([
            node.to_string(),
            ".svc".into(),
            format!(".{}", cluster.names.domain),
        ]);
    }
    direct.extend(proxy.except.iter().map(ToString::to_string));
    let (url, direct) = (proxy.url.as_str(), direct.join(","));
    let mut text = HEADER.to_owned();
    // Some programs know one spelling, some the other.
    for (upper, value) in [
        ("HTTP_PROXY", url),
        ("HTTPS_PROXY", url),
        ("NO_PROXY", direct.as_str()),
    ] {
        text.push_str(&format!(
            "{upper}={value}\n{}={value}\n",
            upper.to_lowercase()
        ));
    }
    text
}

/// What gives a unit the proxy. With the bring-up, after which systemd reads its units again: it may know this one.
pub(crate) fn for_unit(profile: &Profile, unit: &str) -> Option<File> {
    profile.network.proxy.as_ref()?;
    let path = format!("/etc/systemd/system/{unit}.d/50-sternpost-proxy.conf");
    let text = format!("{HEADER}[Service]\nEnvironmentFile={PROXY_SETTINGS}\n");
    Some(file(path, text, When::BringUp))
}
