//! Sources that misbehave.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;

use rustix::net::{AddressFamily, SocketType};

use crate::fixture::{Fixture, Image};
use crate::server::{Behaviour, Server};

/// An image of which nothing is on the machine already.
fn all_new() -> Image {
    let mut image = Image::new("2.0");
    image.root = crate::fixture::noise(42, 5 << 20);
    image.seal();
    image
}

#[test]
fn ranges_fetch_only_what_is_missing() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Ranges]);
    machine.run(&["install", &server.url]).ok();
    machine.assert_holds(&image, "staged");
    let sent = server.sent.load(Ordering::SeqCst);
    assert!(sent < 600 * 1024, "{sent}");
}

#[test]
fn a_server_without_ranges_is_read_front_to_back() {
    let machine = Fixture::new();
    let image = all_new();
    let server = Server::new(image.bundle(), &[Behaviour::Whole]);
    machine.run(&["install", &server.url]).ok();
    machine.assert_holds(&image, "staged");
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_that_stops_half_way_is_asked_again() {
    for (stops, then) in [
        (Behaviour::StopAfter(100_000), Behaviour::Ranges),
        (Behaviour::WholeStopAfter(2_000_000), Behaviour::Whole),
        (Behaviour::Status(503), Behaviour::Ranges),
    ] {
        let machine = Fixture::new();
        let image = all_new();
        let server = Server::new(image.bundle(), &[stops, then]);
        let ran = machine.run(&["install", &server.url]).ok();
        assert!(ran.err().contains("trying again"), "{}", ran.err());
        machine.assert_holds(&image, "staged");
    }
}

#[test]
fn a_server_that_gives_up_for_good_loses_nothing_and_it_goes_on() {
    let machine = Fixture::new();
    let image = all_new();
    let bundle = image.bundle();
    let server = Server::new(
        bundle.clone(),
        &[
            Behaviour::Ranges,
            Behaviour::StopAfter(4_500_000),
            Behaviour::Status(500),
        ],
    );
    machine
        .run(&["install", &server.url])
        .fails(5, &["500", "attempts", "is kept"]);
    assert_eq!(machine.record().a.status().name(), "good");
    server.now(Behaviour::Ranges);
    server.sent.store(0, Ordering::SeqCst);
    machine.run(&["install", &server.url]).ok();
    machine.assert_holds(&image, "staged");
    let sent = server.sent.load(Ordering::SeqCst);
    assert!(sent < 2 << 20, "{sent} of {} were sent again", bundle.len());
}

#[test]
fn no_server_and_no_such_file() {
    let machine = Fixture::new();
    let image = Image::new("2.0");
    let server = Server::new(image.bundle(), &[Behaviour::Status(404)]);
    machine
        .run(&["install", &server.url])
        .fails(5, &["404", "check the address"]);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    let astray = Server::new(image.bundle(), &[Behaviour::Astray]);
    let ran = machine.run(&["install", &astray.url]);
    assert!(!ran.err().contains("secret"), "{}", ran.err());
    ran.fails(5, &["redirects to what is no address"]);
    machine.run(&["install", "ftp://x/y"]).fails(2, &["ftp://"]);
    machine
        .run(&["install", "/nowhere/bundle.spb"])
        .fails(5, &["/nowhere/bundle.spb"]);
    machine.run(&["install", "/"]).fails(5, &["is a directory"]);
}

#[test]
fn no_network() {
    let machine = Fixture::new();
    // Taken, so that nobody else can listen there, and never listened on: every connection is refused.
    let taken = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&taken, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = SocketAddrV4::try_from(rustix::net::getsockname(&taken).unwrap())
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/bundle.spb");
    let before = machine.record();
    machine
        .run(&["install", &url])
        .fails(5, &["attempts", "check the network and the server"]);
    assert!(machine.record() == before);
}

#[test]
fn another_file_half_way_is_noticed() {
    let machine = Fixture::new();
    let image = all_new();
    let server = Server::new(
        image.bundle(),
        &[Behaviour::StopAfter(200_000), Behaviour::Other],
    );
    machine
        .run(&["install", &server.url])
        .fails(5, &["changed during the download"]);
    let server = Server::new(image.bundle(), &[Behaviour::Flipped]);
    machine
        .run(&["install", &server.url])
        .fails(4, &["not what was signed"]);
}

#[test]
fn a_server_that_sends_too_much_is_not_believed() {
    let machine = Fixture::new();
    let image = all_new();
    let server = Server::new(image.bundle(), &[Behaviour::More]);
    machine
        .run(&["install", &server.url])
        .fails(5, &["goes on after the end"]);
    assert_eq!(machine.record().b.status().name(), "empty");
}
