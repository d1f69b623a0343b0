//! Sources that misbehave.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;

use std::time::{Duration, Instant};

use bootctl::failure::{Code, Failure};
use bootctl::progress::Progress;
use bootctl::source::Source as _;
use bootctl::source::http::{Http, Retry};
use bootctl::source::web::Web;
use rustix::net::{AddressFamily, SocketType};

use crate::fixture::{Fixture, Image, noise};
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

/// What takes minutes in the field, in seconds.
fn impatient() -> Retry {
    Retry {
        attempts: 3,
        pause: Duration::from_millis(1),
        patience: Duration::from_secs(2),
        rate_over: Duration::from_secs(2),
        ..Retry::default()
    }
}

/// What comes of reading all of a file from a server that behaves so, and how often it was asked.
fn fetched(behaviours: &[Behaviour], retry: Retry) -> (Result<(), Failure>, usize) {
    let file = noise(5, 1 << 20);
    let server = Server::new(file.clone(), behaviours);
    let read =
        Http::open(&server.url, Progress::silent(), retry, &Web::default()).and_then(|mut http| {
            let mut found = vec![0; file.len()];
            http.expect_until(file.len() as u64);
            http.read_exact_at(0, &mut found)?;
            assert!(found == file, "other bytes than the file's");
            Ok(())
        });
    (read, server.requests.load(Ordering::SeqCst))
}

#[test]
fn a_server_that_stalls_is_asked_again_where_it_stopped() {
    let (read, requests) = fetched(
        &[Behaviour::StallAfter(300_000), Behaviour::Ranges],
        impatient(),
    );
    read.unwrap();
    assert_eq!(requests, 2);
    let (read, requests) = fetched(&[Behaviour::StallAfter(0)], impatient());
    let failure = read.unwrap_err();
    assert_eq!(failure.code, Code::Source);
    assert!(failure.what.contains("3 attempts"), "{failure}");
    // The first answer, and each attempt after it.
    assert_eq!(requests, 3);
}

#[test]
fn a_server_that_trickles_is_left_for_a_new_connection_and_at_last_given_up() {
    let (read, requests) = fetched(&[Behaviour::Trickle, Behaviour::Ranges], impatient());
    read.unwrap();
    assert_eq!(requests, 2);
    let (read, requests) = fetched(&[Behaviour::Trickle], impatient());
    let failure = read.unwrap_err();
    assert_eq!(failure.code, Code::Source);
    assert!(failure.what.contains("sends too slowly"), "{failure}");
    assert!(failure.what.contains("3 attempts"), "{failure}");
    assert_eq!(requests, 3);
}

#[test]
fn where_nobody_is_there_a_download_is_tried_for_until_its_time_is_over() {
    let mut behaviours = vec![Behaviour::StopAfter(1000)];
    behaviours.extend([Behaviour::Status(503); 20]);
    behaviours.push(Behaviour::Ranges);
    let until = |seconds| Retry {
        until: Some(Instant::now() + Duration::from_secs(seconds)),
        ..impatient()
    };
    fetched(&behaviours, impatient()).0.unwrap_err();
    fetched(&behaviours, until(60)).0.unwrap();
    fetched(&behaviours, until(0)).0.unwrap_err();
    // One that never gave a byte may be the wrong one.
    fetched(&behaviours[1..], until(60)).0.unwrap_err();
}

#[test]
fn a_page_in_place_of_the_bundle_is_called_one() {
    let machine = Fixture::new();
    let server = Server::new(vec![], &[Behaviour::Page]);
    machine
        .run(&["install", &server.url])
        .fails(5, &["answered with a page", "portal"]);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    // Amid a download it is a network that has lost its way to the world.
    let amid = [
        Behaviour::StopAfter(300_000),
        Behaviour::Page,
        Behaviour::Ranges,
    ];
    fetched(&amid, impatient()).0.unwrap();
}

#[test]
fn an_installation_may_be_told_for_how_long_to_go_on() {
    let machine = Fixture::new();
    let image = all_new();
    let mut behaviours = vec![Behaviour::Ranges, Behaviour::StopAfter(100_000)];
    // One more than would be given up after.
    behaviours.extend([Behaviour::Status(503); 8]);
    behaviours.push(Behaviour::Ranges);
    let server = Server::new(image.bundle(), &behaviours);
    machine.run(&["install", "--wait", "600", &server.url]).ok();
    machine.assert_holds(&image, "staged");
}

#[test]
fn so_may_an_update_of_recovery_and_of_the_loader() {
    let machine = crate::recovery::both_good();
    let image = Image::recovery("7.0");
    let mut behaviours = vec![Behaviour::Ranges, Behaviour::StopAfter(1000)];
    behaviours.extend([Behaviour::Status(503); 8]);
    behaviours.push(Behaviour::Ranges);
    let server = Server::new(image.bundle(), &behaviours);
    let update = ["update-recovery", "--wait", "600", &server.url];
    machine.run(&update).ok();
    // What it is told goes for a source alone.
    machine
        .run(&["update-loader", "--copy", "--wait", "600"])
        .code_is(2);
    let loader = crate::loader::machine();
    let bundle = std::fs::read(crate::loader::bundle(&loader, 2)).unwrap();
    let server = Server::new(bundle, &behaviours);
    let update = ["update-loader", "--wait", "600", &server.url];
    loader.run(&update).ok();
}
