//! Downloads.
//!
//! What is downloaded is named by its SHA-256 and kept under that name; nothing else is used. A
//! connection that breaks is taken up where it broke, a few times, with pauses that grow.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::sources::address::{self, shown, shown_in};
use crate::workshop::Workshop;
use crate::workshop::cache::{Cache, KeyBuilder};

/// How often a download is tried.
const ATTEMPTS: u32 = 4;

/// The file behind `url`, or `member` of the .tar.gz, .tar.xz or .tar.zst behind it.
pub async fn fetch(
    workshop: &Workshop,
    url: &str,
    sha256: &str,
    member: Option<&str>,
) -> Result<PathBuf> {
    let step = workshop
        .progress()
        .start(&format!("downloading {}", shown(url)));
    let (cache, url, digest) = (workshop.cache().clone(), url.to_owned(), sha256.to_owned());
    let archive =
        tokio::task::spawn_blocking(move || download(&cache, &url, &digest, &|_| {})).await??;
    step.done();
    let Some(member) = member else {
        return Ok(archive);
    };
    let key = KeyBuilder::new("member-1")
        .value("archive", sha256)
        .value("member", member)
        .finish();
    let tools = workshop.tools().await?;
    let made = workshop
        .step(
            "member",
            &format!("unpacking {member}"),
            &key,
            async |out: &Path, _| {
                let output = fs::File::create(out.join("member"))?;
                let status = tools
                    .command("tar")?
                    .args(["-x", "-O", "-f"])
                    .arg(&archive)
                    .arg(member)
                    .stdout(output)
                    .status()
                    .await?;
                ensure!(
                    status.success(),
                    "{member} cannot be unpacked from the archive"
                );
                Ok(())
            },
        )
        .await?;
    Ok(made.join("member"))
}

/// Downloads what is not in the cache. Blocks. `progress` hears of each piece's size.
pub(crate) fn download(
    cache: &Cache,
    url: &str,
    sha256: &str,
    progress: &dyn Fn(u64),
) -> Result<PathBuf> {
    if let Some(path) = cache.blob(sha256) {
        return Ok(path);
    }
    let mut file = cache.new_blob()?;
    let mut hash = Sha256::new();
    let mut have = 0;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(500 << attempt));
        }
        match receive(url, &mut file, &mut hash, &mut have, progress) {
            Ok(()) => {
                last = None;
                break;
            }
            Err(error) if error.is::<Final>() => {
                return Err(error.context(format!("cannot download {}", shown(url))));
            }
            Err(error) => last = Some(error),
        }
    }
    if let Some(error) = last {
        let what = format!("cannot download {} ({ATTEMPTS} attempts)", shown(url));
        return Err(error.context(what));
    }
    let found = hex::encode(hash.finalize());
    ensure!(
        found == sha256,
        "{} is not the file that was asked for: its SHA-256 is {found}, not {sha256}; \
         if the package was replaced by a newer one, make the lock again (`imager lock`)",
        shown(url)
    );
    cache.commit_blob(sha256, file)
}

/// An answer that will not be another one the next time.
#[derive(Debug, thiserror::Error)]
#[error("the server answers {0}")]
struct Final(u16);

fn receive(
    url: &str,
    file: &mut tempfile::NamedTempFile,
    hash: &mut Sha256,
    have: &mut u64,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let (address, authorization) = address::request(url);
    let mut request = agent().get(&address);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    if *have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    // What is wrong with an address is said with the address.
    let response = request
        .call()
        .map_err(|error| anyhow!(shown_in(&error.to_string().replace(&address, &shown(url)))))?;
    let status = response.status().as_u16();
    if *have > 0 && status == 200 {
        // The server does not do ranges: from the start again.
        file.as_file_mut().set_len(0)?;
        std::io::Seek::rewind(file.as_file_mut())?;
        *hash = Sha256::new();
        *have = 0;
    } else if status != 200 && !(status == 206 && *have > 0) {
        if (400..500).contains(&status) && ![408, 429].contains(&status) {
            return Err(Final(status).into());
        }
        bail!("the server answers {status}");
    }
    let length: Option<u64> = response
        .headers()
        .get("content-length")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let expected = length.map(|length| *have + length);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = body.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n])
            .context("cannot write to the cache")?;
        hash.update(&buffer[..n]);
        *have += n as u64;
        progress(n as u64);
    }
    if let Some(expected) = expected {
        ensure!(
            *have == expected,
            "the connection ended after {have} of {expected} bytes"
        );
    }
    Ok(())
}

/// One agent for all: it keeps connections. It trusts what the host trusts.
fn agent() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .user_agent(concat!("imager/", env!("CARGO_PKG_VERSION")));
        if let Some(roots) = host_roots() {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        config.build().new_agent()
    })
}

/// The certificates that the host trusts; nothing if it has no store of them.
fn host_roots() -> Option<RootCerts> {
    let store = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> = store
        .certs
        .iter()
        .map(|it| Certificate::from_der(it).to_owned())
        .collect();
    (!certificates.is_empty()).then(|| RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    use super::*;
    use crate::workshop::cache::hash_bytes;

    /// Answers one request after the other as told: status line and headers, then these bytes.
    fn server(answers: Vec<(String, Vec<u8>)>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut ranges = Vec::new();
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut range = String::new();
                let mut first = true;
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap();
                    if line.is_empty() {
                        break;
                    }
                    let lower = line.to_lowercase();
                    if first && line.contains("?") || lower.starts_with("authorization:") {
                        range.push_str(&line);
                    }
                    first = false;
                    if lower.starts_with("range:") {
                        range = line;
                    }
                }
                ranges.push(range.to_lowercase());
                write!(stream, "HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").unwrap();
                stream.write_all(&body).unwrap();
            }
            ranges
        });
        (format!("http://{address}/file"), thread)
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        (directory, cache)
    }

    #[test]
    fn a_download_that_breaks_goes_on_where_it_broke() {
        let (_directory, cache) = cache();
        let content = b"0123456789";
        let (url, server) = server(vec![
            ("200 OK\r\nContent-Length: 10".into(), content[..4].to_vec()),
            (
                "206 Partial Content\r\nContent-Length: 6".into(),
                content[4..].to_vec(),
            ),
        ]);
        let path = download(&cache, &url, &hash_bytes(content), &|_| {}).unwrap();
        assert_eq!(fs::read(path).unwrap(), content);
        assert_eq!(server.join().unwrap(), ["", "range: bytes=4-"]);
    }

    #[test]
    fn a_server_without_ranges_starts_again() {
        let (_directory, cache) = cache();
        let content = b"0123456789";
        let whole = "200 OK\r\nContent-Length: 10";
        let (url, server) = server(vec![
            (whole.into(), content[..4].to_vec()),
            (whole.into(), content.to_vec()),
        ]);
        let path = download(&cache, &url, &hash_bytes(content), &|_| {}).unwrap();
        assert_eq!(fs::read(path).unwrap(), content);
        server.join().unwrap();
    }

    #[test]
    fn another_file_is_refused_and_nothing_of_it_kept() {
        let (_directory, cache) = cache();
        let wanted = hash_bytes(b"wanted");
        let (url, server) = server(vec![(
            "200 OK\r\nContent-Length: 5".into(),
            b"other".to_vec(),
        )]);
        let error = download(&cache, &url, &wanted, &|_| {}).unwrap_err();
        assert!(error.to_string().contains(&wanted), "{error}");
        assert!(cache.blob(&wanted).is_none());
        server.join().unwrap();
    }

    #[test]
    fn what_is_not_there_is_asked_for_once() {
        let (_directory, cache) = cache();
        let (url, server) = server(vec![(
            "404 Not Found\r\nContent-Length: 0".into(),
            Vec::new(),
        )]);
        let error = download(&cache, &url, &hash_bytes(b"x"), &|_| {}).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("404") && error.contains(&url), "{error}");
        assert_eq!(server.join().unwrap().len(), 1);
    }

    #[test]
    fn what_an_address_says_of_who_asks_is_for_the_server_alone() {
        let (_directory, cache) = cache();
        let answers = vec![("404 Not Found\r\nContent-Length: 0".into(), Vec::new())];
        let (url, server) = server(answers);
        let url = url.replace("http://", "http://me:secret@") + "?token=secret";
        let error = download(&cache, &url, &hash_bytes(b"x"), &|_| {}).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            !error.contains("secret") && error.contains("?token=…"),
            "{error}"
        );
        let heard = server.join().unwrap().concat();
        assert!(heard.contains("token=secret"), "{heard}");
        // me:secret
        assert!(heard.contains("basic bwu6c2vjcmv0"), "{heard}");
        // What is no address at all is told with what is wrong, and no more.
        let broken = "http://me:secret@h o/?token=secret";
        let error = download(&cache, broken, &hash_bytes(b"x"), &|_| {}).unwrap_err();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }
}
