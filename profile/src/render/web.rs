//! How servers are reached: the proxy, and the authorities of the site. Sources: systemd.exec(5) "EnvironmentFile";
//! golang.org/x/net/http/httpproxy; crypto/x509 of Go, which reads every file in /etc/ssl/certs.

use crate::contribution::{HEADER, file};
use crate::schema::Proxy;
use crate::{File, Profile, When};

/// The proxy, as the environment that programs look for it in. It may hold a password: root alone reads it.
pub const PROXY_SETTINGS: &str = "/etc/sternpost/proxy.env";
/// The same for login shells, which read every file in that folder that they may (/etc/profile): all of them, or, where
/// the address holds a name and a password, root's alone.
const SHELL_SETTINGS: &str = "/etc/profile.d/50-sternpost-proxy.sh";
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
        let settings = settings(profile, proxy, hostname);
        let each = |line: fn(&str, &str) -> String| -> String {
            let lines = settings.iter().map(|(name, value)| line(name, value));
            HEADER.to_owned() + &lines.collect::<String>()
        };
        let for_units = each(|name, value| format!("{name}={value}\n"));
        // No value has a quote in it.
        let for_shells = each(|name, value| format!("export {name}='{value}'\n"));
        files.push(File {
            mode: 0o600,
            ..file(PROXY_SETTINGS, for_units, When::Early)
        });
        files.push(File {
            mode: if proxy.url.has_credentials() {
                0o600
            } else {
                0o644
            },
            ..file(SHELL_SETTINGS, for_shells, When::Early)
        });
    }
}

/// Names and values of the environment.
fn settings(profile: &Profile, proxy: &Proxy, hostname: &str) -> Vec<(String, String)> {
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
    let upper = [
        ("HTTP_PROXY", url),
        ("HTTPS_PROXY", url),
        ("NO_PROXY", direct.as_str()),
    ];
    // Some programs know one spelling, some the other.
    let both = upper.into_iter().flat_map(|(name, value)| {
        [name.to_owned(), name.to_lowercase()].map(|name| (name, value.to_owned()))
    });
    both.collect()
}

/// What gives a unit the proxy. With the bring-up, after which systemd reads its units again: it may know this one.
pub(crate) fn for_unit(profile: &Profile, unit: &str) -> Option<File> {
    profile.network.proxy.as_ref()?;
    let path = format!("/etc/systemd/system/{unit}.d/50-sternpost-proxy.conf");
    let text = format!("{HEADER}[Service]\nEnvironmentFile={PROXY_SETTINGS}\n");
    Some(file(path, text, When::BringUp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(url: &str) -> Vec<File> {
        let text =
            format!("version: 1\nnetwork: {{proxy: {{url: '{url}', except: [10.20.0.0/16]}}}}\n");
        let profile = crate::parse(&text, "p.yaml").unwrap();
        let mut files = Vec::new();
        render(&profile, "till-7", &mut files);
        files
    }

    #[test]
    fn shells_of_everybody_get_a_proxy_and_those_of_root_alone_a_password() {
        for (url, mode) in [
            ("http://proxy.example.com:3128", 0o644),
            ("http://me:p%40ss@proxy.example.com:3128", 0o600),
            ("http://me@proxy.example.com:3128", 0o600),
        ] {
            let files = rendered(url);
            let file = |path| files.iter().find(|it| it.path == path).unwrap();
            let shells = file(SHELL_SETTINGS);
            assert_eq!(shells.mode, mode, "{url}");
            let text = String::from_utf8(shells.content.clone()).unwrap();
            for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
                let line = format!("\nexport {name}='{url}'\n");
                assert!(text.contains(&line), "{text}");
            }
            assert!(
                text.contains(
                    "\nexport no_proxy='localhost,127.0.0.0/8,::1,till-7,10.20.0.0/16'\n"
                )
            );
            assert_eq!(file(PROXY_SETTINGS).mode, 0o600);
        }
    }
}
