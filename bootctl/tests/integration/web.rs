//! Servers with certificates of a site's own, and networks that lead out by a proxy alone.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use boot_core::Target;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fixture::{Fixture, Image};
use crate::server::{Behaviour, Server};

/// An HTTPS server on this machine with `file`; its address, and the certificate of the authority that signed its own.
fn https(file: Vec<u8>) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    let of_authority = ["-subj", "/CN=authority of the site"];
    let of_server = [
        "-CA",
        "authority.pem",
        "-CAkey",
        "authority.key",
        "-subj",
        "/CN=server",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    for (name, arguments) in [("authority", &of_authority[..]), ("server", &of_server[..])] {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ])
            .args(["-nodes", "-days", "2", "-keyout", &format!("{name}.key")])
            .args(["-out", &format!("{name}.pem")])
            .args(arguments)
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }
    let file_of = |name: &str| dir.path().join(name);
    let certificate = CertificateDer::from_pem_file(file_of("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file_of("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/bundle.spb", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // Whoever does not trust us goes away.
            let _ = give(StreamOwned::new(connection, stream), &file);
        }
    });
    let authority = std::fs::read_to_string(file_of("authority.pem")).unwrap();
    (url, authority)
}

fn give(mut stream: impl Read + Write, file: &[u8]) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        file.len()
    )?;
    stream.write_all(file)?;
    stream.flush()
}

/// Gives the machine a profile of its own, and starts it with that.
fn apply(machine: &Fixture, network: &str) {
    let profile = format!("version: 1\nhostname: edge-1\nnetwork:\n{network}");
    std::fs::write(machine.root().join("state/sternpost/profile.yaml"), profile).unwrap();
    let applied = machine.run(&["profile", "apply"]).ok().out();
    assert!(applied.contains("is in force"), "{applied}");
}

fn authorities(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("      {line}\n")).collect();
    format!("  authorities:\n    - |\n{lines}")
}

#[test]
fn an_authority_of_the_site_is_trusted_by_store_and_by_profile() {
    let image = Image::new("2.0");
    let (url, authority) = https(image.bundle());
    let machine = Fixture::new();
    machine
        .run(&["install", &url])
        .fails(5, &["UnknownIssuer", "network.authorities"]);

    let store = machine.root().join("etc/ssl/certs/ca-certificates.crt");
    std::fs::create_dir_all(store.parent().unwrap()).unwrap();
    std::fs::write(&store, &authority).unwrap();
    machine.run(&["install", &url]).ok();
    machine.assert_holds(&image, "staged");

    // Beside a store of others; in recovery, too.
    let (_, other) = https(vec![]);
    let machine = Fixture::new();
    std::fs::create_dir_all(machine.root().join("etc/ssl/certs")).unwrap();
    std::fs::write(
        machine.root().join("etc/ssl/certs/ca-certificates.crt"),
        other,
    )
    .unwrap();
    machine.boots(Target::Recovery, &Image::new("1.0"));
    let install = ["install", "--slot", "b", &url];
    // Of the same name, by another key.
    machine
        .run(&install)
        .fails(5, &["invalid peer certificate"]);
    apply(&machine, &authorities(&authority));
    machine.run(&install).ok();
    machine.assert_holds(&image, "staged");
}

/// A proxy that connects to `server`, whatever it is asked for; what it heard.
fn proxy(server: &str, answer: &'static str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.split('/').nth(2).unwrap().to_owned();
    let heard = Arc::new(Mutex::new(String::new()));
    let log = heard.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = relay(client, &server, answer, &log);
        }
    });
    (address, heard)
}

fn relay(
    mut client: TcpStream,
    server: &str,
    answer: &str,
    log: &Mutex<String>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        log.lock().unwrap().push_str(&line);
        line.clear();
    }
    write!(client, "HTTP/1.1 {answer}\r\n\r\n")?;
    if !answer.starts_with("200") {
        return Ok(());
    }
    let mut upstream = TcpStream::connect(server)?;
    let mut back = (upstream.try_clone()?, client.try_clone()?);
    thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
    thread::spawn(move || std::io::copy(&mut reader, &mut upstream));
    Ok(())
}

#[test]
fn a_proxy_alone_leads_out() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (address, heard) = proxy(&server.url, "200 OK");
    apply(
        &machine,
        &format!("  proxy: {{url: \"http://me:sec%3Fret@{address}\", except: [example.org]}}\n"),
    );
    let ran = machine
        .run(&["install", "http://images.invalid/bundle.spb"])
        .ok();
    machine.assert_holds(&image, "staged");
    let heard = heard.lock().unwrap();
    assert!(heard.starts_with("CONNECT images.invalid:80 "), "{heard}");
    // me:sec?ret
    assert!(
        heard.contains("Proxy-Authorization: Basic bWU6c2VjP3JldA=="),
        "{heard}"
    );
    let settings = machine
        .root()
        .join(profile::PROXY_SETTINGS.trim_start_matches('/'));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(settings).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(!ran.err().contains("ret@"), "{}", ran.err());
}

#[test]
fn what_is_excepted_is_reached_without_the_proxy() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    let (address, heard) = proxy(&server.url, "200 OK");
    apply(
        &machine,
        &format!("  proxy: {{url: \"http://{address}\"}}\n"),
    );
    // This machine itself always is.
    machine.run(&["install", &server.url]).ok();
    assert_eq!(*heard.lock().unwrap(), "");
}

#[test]
fn a_proxys_password_is_shown_nowhere() {
    let machine = Fixture::new();
    let server = Server::new(vec![], &[Behaviour::Status(404)]);
    let (address, _) = proxy(&server.url, "407 Proxy Authentication Required");
    for place in [address.as_str(), "127.0.0.1:1"] {
        apply(
            &machine,
            &format!("  proxy: {{url: \"http://me:hunter2@{place}\"}}\n"),
        );
        for command in [
            &["install", "http://images.invalid/bundle.spb"][..],
            &["profile", "show"],
            &["profile", "show", "--json"],
            &["profile", "check"],
            &["status", "--json"],
        ] {
            let ran = machine.run(command);
            let said = ran.out() + &ran.err();
            assert!(
                !said.contains("hunter2") && !said.contains("bWU6"),
                "{command:?}: {said}"
            );
            assert!(command[0] != "install" || ran.code() == 5, "{said}");
        }
    }
}
