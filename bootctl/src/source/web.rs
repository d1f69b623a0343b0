//! By which way servers are reached: the proxy of this machine, and whose certificates it trusts.
//!
//! Both are what `profile apply` wrote, in recovery too. A proxy in the environment of whoever runs `bootctl` comes
//! first.
//! Where a machine has no store of certificates, those are trusted that were compiled in, beside the profile's.

use std::net::IpAddr;

use profile::schema::Cidr;
use profile::{PROXY_SETTINGS, SITE_AUTHORITIES};
use rustls_native_certs::load_certs_from_paths;
use ureq::config::ConfigBuilder;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::{Agent, Proxy};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::os::paths::Paths;

/// The store of the image, as Debian keeps it.
const STORE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The way, as this machine is set up; the default is a machine of which nothing is known.
#[derive(Debug, Clone, Default)]
pub struct Web {
    proxy: Option<Proxy>,
    /// What is reached without it.
    direct: Vec<String>,
    trusted: Vec<Certificate<'static>>,
}

impl Web {
    /// What the profile in force was rendered to.
    #[must_use]
    pub fn of(paths: &Paths) -> Self {
        let settings = small_file::read_to_string(&paths.at(PROXY_SETTINGS)).unwrap_or_default();
        let value = |name: &str| {
            let mut lines = settings.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let [store, site] = [STORE, SITE_AUTHORITIES].map(|file| {
            let path = Some(paths.at(file)).filter(|path| path.exists());
            path.map_or_else(Vec::new, |path| {
                load_certs_from_paths(Some(&path), None).certs
            })
        });
        // Without either, the same ones are trusted by default. A store that was emptied is one.
        let has_store = paths.at(STORE).exists();
        let store = match has_store || site.is_empty() {
            true => store,
            false => TLS_SERVER_ROOT_CERTS.to_vec(),
        };
        Self {
            proxy: value("HTTPS_PROXY").and_then(|url| {
                let proxy = Proxy::new(url);
                // What it is may hold a password.
                proxy
                    .inspect_err(|_| {
                        eprintln!("bootctl: the address of the proxy is none; going without")
                    })
                    .ok()
            }),
            direct: value("NO_PROXY")
                .map(|list| list.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            trusted: store
                .iter()
                .chain(&site)
                .map(|it| Certificate::from_der(it).to_owned())
                .collect(),
        }
    }

    /// An agent for `url` that goes this way.
    pub(super) fn agent(&self, config: ConfigBuilder<AgentScope>, url: &str) -> Agent {
        let proxy = Proxy::try_from_env().or_else(|| self.proxy_for(url));
        let mut config = config.proxy(proxy);
        if !self.trusted.is_empty() {
            let trusted = RootCerts::new_with_certs(&self.trusted);
            config = config.tls_config(TlsConfig::builder().root_certs(trusted).build());
        }
        config.build().new_agent()
    }

    /// The proxy, unless `url` is reached without it; it knows where a redirection leads past it.
    fn proxy_for(&self, url: &str) -> Option<Proxy> {
        let proxy = self.proxy.as_ref()?;
        let host = url.parse::<Uri>().ok()?.host()?.to_owned();
        let address = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        if let Ok(address) = address {
            let is_direct = |it: &String| {
                it.parse::<Cidr>().is_ok_and(|it| it.contains(address)) || it.parse() == Ok(address)
            };
            if self.direct.iter().any(is_direct) {
                return None;
            }
        }
        let mut builder = Proxy::builder(proxy.protocol())
            .host(proxy.host())
            .port(proxy.port());
        if let Some(name) = proxy.username() {
            builder = builder.username(name);
        }
        if let Some(password) = proxy.password() {
            builder = builder.password(password);
        }
        // A domain stands for itself and all names in it.
        for direct in &self.direct {
            builder = builder.no_proxy(direct);
            builder = builder.no_proxy(&format!(".{}", direct.trim_start_matches('.')));
        }
        builder.build().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::facts::stand_in;

    fn web(settings: &str) -> Web {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        stand_in::put(&paths.at(PROXY_SETTINGS), settings);
        Web::of(&paths)
    }

    #[test]
    fn what_the_profile_excepts_is_reached_without_the_proxy() {
        let web = web(
            "# x\nHTTPS_PROXY=http://me:p%40ss@proxy:3128\nhttps_proxy=x\nNO_PROXY=localhost,::1,10.0.0.0/8,fd00::/8,192.0.2.7,example.com,.svc\n",
        );
        let by_proxy = |url: &str| {
            let proxy = web.proxy_for(url)?;
            (!proxy.is_no_proxy(&url.parse().unwrap())).then_some(proxy)
        };
        for url in [
            "https://images.example.org/a",
            "http://192.0.2.8/a",
            "https://[2001:db8::1]:8443/a",
            "http://notexample.com/a",
        ] {
            let proxy = by_proxy(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!((proxy.host(), proxy.port()), ("proxy", 3128));
            assert_eq!(
                (proxy.username(), proxy.password()),
                (Some("me"), Some("p@ss"))
            );
            assert!(!format!("{proxy:?}").contains("ss@"), "{proxy:?}");
        }
        for url in [
            "http://10.1.2.3:8000/a",
            "https://[fd00::1]/a",
            "http://[::1]:8000/a",
            "http://192.0.2.7/a",
            "https://example.com/a",
            "https://images.example.com/a",
            "http://localhost/a",
            "https://registry.default.svc/a",
        ] {
            assert!(by_proxy(url).is_none(), "{url}");
        }
    }

    #[test]
    fn authorities_of_the_site_take_nothing_from_who_is_trusted_anyway() {
        let site = include_str!(
            "../../../profile/tests/golden/proxy/files/etc/ssl/certs/50-sternpost-site.pem"
        );
        let of_site = site.matches("BEGIN CERTIFICATE").count();
        let trusted = |files: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths::new(dir.path());
            for file in files {
                stand_in::put(&paths.at(file), site);
            }
            Web::of(&paths).trusted.len()
        };
        let public = TLS_SERVER_ROOT_CERTS.len();
        assert!(public > 50 && of_site > 0);
        // An image without a store.
        assert_eq!(trusted(&[]), 0, "those by default");
        assert_eq!(trusted(&[SITE_AUTHORITIES]), public + of_site);
        // Where there is one, it alone says who is trusted beside the profile.
        assert_eq!(trusted(&[STORE]), of_site);
        assert_eq!(trusted(&[STORE, SITE_AUTHORITIES]), 2 * of_site);
    }

    #[test]
    fn a_machine_without_settings_has_no_proxy() {
        assert!(web("").proxy_for("https://example.org/a").is_none());
    }
}
