//! What recovery makes of a profile that is newer than it, or wrong.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use profile::{Diagnostics, ImageFacts, Profile, Reading};
use proptest::prelude::*;

fn image() -> ImageFacts {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": {"distribution": "kubeadm", "version": "1.36.3"},
    }))
    .unwrap()
}

/// Read leniently; and what was left out, each as `PLACE: MESSAGE`.
fn read(text: &str) -> (Profile, Vec<String>) {
    let (profile, said) = profile::check(text, "p.yaml", Reading::Lenient).unwrap();
    (profile, left_out(&said))
}

fn left_out(said: &Diagnostics) -> Vec<String> {
    let one = |it: &profile::Diagnostic| format!("{}:{}: {}", it.line, it.column, it.message);
    said.errors.iter().map(one).collect()
}

/// The files of a folder of cases: names and texts.
fn cases(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("STERNPOST_SOURCE"))
        .join("profile/tests/cases")
        .join(folder);
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut all: Vec<_> = files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read_to_string(file.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn of_a_right_profile_it_is_exactly_what_recovery_needs() {
    for (name, text) in cases("right") {
        let (strict, _) = profile::check(&text, "p.yaml", Reading::For(&image())).unwrap();
        assert_eq!(read(&text), (strict.of_host(), vec![]), "{name}");
    }
}

#[test]
fn only_what_is_no_mapping_of_yaml_is_refused() {
    let refused: Vec<_> = cases("wrong")
        .into_iter()
        .filter(|(_, text)| profile::check(text, "p.yaml", Reading::Lenient).is_err())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        refused,
        [
            "a-list-at-the-top.yaml",
            "alias.yaml",
            "empty-file.yaml",
            "no-yaml.yaml",
            "second-document.yaml",
            "tab.yaml",
            "too-deep.yaml",
        ]
    );
}

#[test]
fn what_is_not_known_is_left_out_and_named_and_the_rest_counts() {
    let (profile, left_out) = read(
        "version: 2
hostname: till-7
wifi: {psk: hunter2}
network:
  interfaces:
    - match: {name: enp1s0}
      addresses: [192.0.2.10/24, fe80::1%3]
      gateways: [192.0.2.1]
      vlan: 7
    - match: {mac: '52:54:00:12:34:56', slot: 3}
      addresses: [198.51.100.1/24]
  proxy: {url: 'http://proxy.example.com:3128', auth: kerberos}
users:
  - name: service
    password_hash: $new$hash
    ssh_keys:
      - ssh-quantum AAAA of-tomorrow
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdTj+FV7RZMRCKMEawsHaNqZqXmRPfBut6SAqv/L3+7 laptop
  - name: guest
    ssh_keys: [ssh-quantum AAAA]
kubernetes: {distribution: of-tomorrow}
health: {deadline: 1 fortnight}
recovery: {install: 'https://images.example.com/edge.spb', after: 5m}
",
    );
    assert_eq!(profile.version, 1);
    assert_eq!(profile.hostname.to_string(), "till-7");
    // One with a condition that is not understood is about who knows what.
    let [interface] = &profile.network.interfaces[..] else {
        panic!("{:?}", profile.network.interfaces)
    };
    assert_eq!(interface.addresses.len(), 1);
    assert_eq!(interface.gateways.len(), 1);
    assert!(profile.network.proxy.is_some());
    let [user] = &profile.users[..] else {
        panic!("{:?}", profile.users)
    };
    assert_eq!((user.name.as_str(), user.ssh_keys.len()), ("service", 1));
    assert!(profile.kubernetes.is_none());
    assert!(profile.recovery.install.is_some());
    let lines: Vec<_> = left_out
        .iter()
        .map(|it| it.split(':').next().unwrap())
        .collect();
    let expected = ["1", "3", "7", "9", "10", "12", "15", "17", "19", "20", "23"];
    assert_eq!(lines, expected, "{left_out:#?}");
    assert!(left_out[1].ends_with("a profile has no field `wifi`"));
    assert!(!left_out.join("\n").contains("hunter2"), "{left_out:?}");
}

#[test]
fn a_value_of_an_unknown_field_is_shown_nowhere() {
    let shown = profile::without_secrets("version: 1\nwifi: {psk: hunter2}\nhostname: box\n");
    assert_eq!(
        shown.unwrap(),
        "version: 1\nwifi: ***** ********\nhostname: box\n"
    );
}

#[test]
fn of_a_field_that_is_given_twice_the_first_counts() {
    let (profile, left_out) = read("version: 1\nhostname: one\nhostname: two\n");
    assert_eq!(profile.hostname.to_string(), "one");
    assert_eq!(left_out, ["3:1: `hostname` is given twice"]);
}

/// The names under which interfaces are left, of a list of them in YAML.
fn interfaces(list: &str) -> Vec<String> {
    let (profile, left_out) = read(&format!("version: 1\nnetwork:\n  interfaces: {list}\n"));
    assert!(!left_out.is_empty());
    let left = profile.network.interfaces.iter();
    left.map(|it| serde_json::to_value(it).unwrap()["match"].to_string())
        .collect()
}

#[test]
fn an_interface_that_is_left_out_gets_nothing_that_was_for_others() {
    // A pattern would match it now; a name of its own does not.
    let left = interfaces(
        "[{match: {name: enp1s0, slot: 3}}, {match: {name: 'en*'}, addresses: [192.0.2.7/24]}, \
          {match: {driver: igb}}, {match: {name: enp2s0}}]",
    );
    assert_eq!(left, [r#"{"name":"enp2s0"}"#]);
    // Before it, it did not get anything of it either.
    let left = interfaces("[{match: {name: 'en*'}}, {match: {name: enp1s0, slot: 3}}]");
    assert_eq!(left, [r#"{"name":"en*"}"#]);
}

#[test]
fn what_is_not_to_ask_dhcp_does_not() {
    let left = interfaces("[{match: {name: eth0}, dhcp: false, addresses: [of-tomorrow]}]");
    assert!(left.is_empty(), "{left:?}");
    let left = interfaces("[{match: {name: eth0}, dhcp: {v4: true}}]");
    assert_eq!(left, [r#"{"name":"eth0"}"#]);
}

#[test]
fn a_condition_that_is_an_alias_is_none_that_is_known() {
    for condition in ["mac: *it, driver: igb", "driver: igb, ? [a] : b"] {
        let (profile, left_out) = read(&format!(
            "version: 1\nhostname: &it till-7\nnetwork: {{interfaces: [{{match: {{{condition}}}}}]}}\n"
        ));
        assert!(profile.network.interfaces.is_empty(), "{left_out:?}");
        assert_eq!(profile.hostname.to_string(), "till-7");
    }
}

#[test]
fn there_is_always_something_to_be() {
    for text in ["{}", "a: b", "version: []", "network: {interfaces: {a: 1}}"] {
        let (profile, left_out) = read(text);
        let (empty, _) = read("version: 1");
        assert_eq!(profile, empty, "{text}");
        assert!(!left_out.is_empty(), "{text}");
    }
}

/// A field, most of them of a profile.
fn field() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "version",
        "hostname",
        "network",
        "interfaces",
        "match",
        "name",
        "mac",
        "driver",
        "dhcp",
        "addresses",
        "gateways",
        "gateway_on_link",
        "dns",
        "search",
        "mtu",
        "proxy",
        "url",
        "except",
        "authorities",
        "time",
        "servers",
        "wait",
        "if_unknown",
        "users",
        "ssh_keys",
        "password_hash",
        "admin",
        "state",
        "on_damage",
        "recovery",
        "install",
        "kubernetes",
        "vm",
        "health",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[a-z]{0,3}"]
}

/// A mapping of YAML, in JSON: with the fields of a profile, wherever they fall.
fn mapping() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let text = prop::sample::select(vec![
        "",
        "eth0",
        "192.0.2.1/24",
        "192.0.2.1",
        "::1",
        "0.0.0.0",
        "a.example.com",
        "5m",
        "0s",
        "root",
        "service",
        "http://p:1",
        "https://example.com/a.spb",
        "start",
        "erase",
        "none",
        "52:54:00:12:34:56",
        "{machine-id:8}",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-1_i64..70_000).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(field(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(field(), value, 0..8)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn no_mapping_is_refused(mapping in mapping()) {
        let text = mapping.to_string();
        let (profile, left_out) = read(&text);
        // What came out is a profile that the strict reader takes as it stands.
        let again = serde_json::to_string(&profile).unwrap();
        let (strict, _) = profile::check(&again, "p.yaml", Reading::Strict)
            .unwrap_or_else(|said| panic!("{text}\n{again}\n{said}"));
        prop_assert_eq!(&strict, &profile);
        if let Ok((whole, _)) = profile::check(&text, "p.yaml", Reading::Strict) {
            prop_assert_eq!(whole.of_host(), profile);
            prop_assert!(left_out.is_empty(), "{:?}", left_out);
        }
    }
}
