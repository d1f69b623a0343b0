//! Addresses that are well formed and senseless, and what networkd is told of those that are not.
#![allow(clippy::unwrap_used)]

use profile::{ImageFacts, MachineFacts};

fn image() -> ImageFacts {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": null,
    }))
    .unwrap()
}

fn machine() -> MachineFacts {
    MachineFacts {
        machine_id: "0".repeat(32),
        boot_id: String::new(),
    }
}

/// What networkd reads about the one interface, or what is wrong with it.
fn rendered(interface: &str) -> Result<String, String> {
    let text = format!("version: 1\nnetwork:\n  interfaces:\n    - {{{interface}}}\n");
    let profile = profile::parse(&text, "x").map_err(|it| it.errors[0].message.clone())?;
    let rendered = profile::render(&profile, &image(), &machine()).unwrap();
    let mut files = rendered.files.iter();
    let file = files.find(|it| it.path.ends_with(".network")).unwrap();
    Ok(String::from_utf8(file.content.clone()).unwrap())
}

const CLUSTER: &str = "kubernetes: {distribution: kubeadm, role: init}\n";

/// What is said about this, beside the version.
fn said(text: &str) -> Vec<String> {
    let text = format!("version: 1\n{text}");
    let errors = profile::parse(&text, "x").map_or_else(|it| it.errors, |_| vec![]);
    errors.into_iter().map(|it| it.message).collect()
}

#[test]
fn addresses_that_nobody_has_are_refused() {
    let interface = |name: &str, rest: &str| format!("    - {{match: {{name: {name}}}, {rest}}}\n");
    let network =
        |interfaces: &[String]| said(&format!("network:\n  interfaces:\n{}", interfaces.concat()));
    let both = network(&[interface(
        "enp1s0",
        "addresses: [192.0.2.0/24], gateways: [192.0.2.255]",
    )]);
    assert_eq!(
        both,
        [
            "192.0.2.0 is the network itself, not the address of a machine",
            "192.0.2.255 is everybody in the network (broadcast), not the address of a gateway",
        ]
    );
    let twice = network(&[
        interface("enp1s0", "addresses: [192.0.2.10/24]"),
        interface("enp2s0", "addresses: [192.0.2.10/25]"),
    ]);
    assert_eq!(twice, ["192.0.2.10 is an address of interfaces[0] already"]);
    let group = network(&[interface("enp1s0", "addresses: [224.0.0.5/32]")]);
    assert!(group[0].contains("multicast"), "{group:?}");
    // Links of two have neither; the first address of an IPv6 network is one like others.
    for fine in ["192.0.2.0/31", "192.0.2.1/32", "\"2001:db8::/64\""] {
        let found = network(&[interface("enp1s0", &format!("addresses: [{fine}]"))]);
        assert!(found.is_empty(), "{fine}: {found:?}");
    }
}

#[test]
fn what_lies_in_the_cluster_cannot_be_reached_outside_of_it() {
    let found = said(&format!(
        "network: {{dns: [10.43.0.10]}}\ntime: {{servers: [\"10.42.7.1\", ntp.example.org]}}\n{CLUSTER}"
    ));
    assert_eq!(
        found,
        [
            "the DNS server 10.43.0.10 is an address of the cluster's services (10.43.0.0/16)",
            "the time server 10.42.7.1 is an address of the cluster's pods (10.42.0.0/16)",
        ]
    );
    let lan = "network:\n  interfaces:\n    - {match: {name: enp1s0}, addresses: [10.44.0.5/24], gateways: [10.44.0.1]}\n";
    let found = said(&format!("{lan}{CLUSTER}"));
    assert_eq!(found.len(), 2, "{found:?}");
    let wide = "10.44.0.5/24 holds 10.44.0.1, which this machine has inside the cluster";
    assert!(found.contains(&wide.to_owned()), "{found:?}");
    // Without a cluster, or with an address of its own for the node, it is a network like others.
    assert!(said(lan).is_empty());
    let node = CLUSTER.replace("init", "init, node_address: 10.44.0.5");
    assert!(said(&format!("{lan}{node}")).is_empty());
}

#[test]
fn networks_of_a_cluster_are_networks_of_machines_and_large_enough() {
    let cluster = |rest: &str| said(&CLUSTER.replace("init", &format!("init, {rest}")));
    let found = cluster("pod_cidr: 224.0.0.0/16");
    assert_eq!(
        found,
        ["224.0.0.0/16 holds addresses that no machine can have"]
    );
    let found = cluster("pod_cidr: 10.42.0.0/24, max_pods: 254");
    assert_eq!(found, ["10.42.0.0/24 has addresses for 253 pods"]);
    assert!(cluster("pod_cidr: 10.42.0.0/24, max_pods: 253").is_empty());
    assert!(cluster("pod_cidr: 10.42.0.0/24, max_pods: 500, cni: none").is_empty());
}

#[test]
fn a_gateway_on_the_link_is_meant_where_nothing_else_can_be() {
    let rendered = |rest: &str| rendered(&format!("match: {{name: enp1s0}}, {rest}"));
    let on_link = "\n[Route]\nGateway=198.51.100.1\nGatewayOnLink=yes\n";
    let single = rendered("addresses: [192.0.2.10/32], gateways: [198.51.100.1]").unwrap();
    assert!(single.ends_with(on_link), "{single}");
    let said =
        rendered("addresses: [192.0.2.10/24], gateways: [198.51.100.1], gateway_on_link: true");
    assert!(said.unwrap().ends_with(on_link));
    let six = "addresses: [\"2001:db8:7::10/64\"], gateways: [\"2001:db8:ffff::1\"]";
    assert!(
        rendered(six)
            .unwrap_err()
            .contains("is in no network of this interface")
    );
    let six = rendered(&format!("{six}, gateway_on_link: true")).unwrap();
    assert!(
        six.ends_with("Gateway=2001:db8:ffff::1\nGatewayOnLink=yes\n"),
        "{six}"
    );
    // One within is rendered as ever.
    let within = rendered("addresses: [192.0.2.10/24], gateways: [192.0.2.1]").unwrap();
    assert!(within.ends_with("Gateway=192.0.2.1\n") && !within.contains("OnLink"));
}

#[test]
fn the_loopback_is_never_matched() {
    let matched = |pattern: &str| rendered(&format!("match: {{{pattern}}}")).unwrap();
    for takes_it in ["name: \"*\"", "name: \"l?\"", "driver: \"*\""] {
        assert!(matched(takes_it).contains("Type=!loopback\n"), "{takes_it}");
    }
    let only = rendered("match: {name: lo}").unwrap_err();
    assert_eq!(only, "the loopback is never matched");
    for never in ["name: \"en*\"", "mac: \"52:54:00:12:34:56\""] {
        assert!(!matched(never).contains("loopback"), "{never}");
    }
}
