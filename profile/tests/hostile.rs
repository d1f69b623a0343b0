//! No text, however broken, does more than be refused; and what is accepted renders.

use std::time::Duration;

use profile::{ImageFacts, MachineFacts, Reading, check, parse, parse_for, render};
use proptest::prelude::*;

fn image() -> ImageFacts {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": {"distribution": "kubeadm", "version": "1.36.3"},
    }))
    .expect("facts of an image")
}

fn machine() -> MachineFacts {
    MachineFacts {
        machine_id: "0f3b5c1a2d4e46788a9bacbdcedfe0f1".into(),
        boot_id: "b".into(),
    }
}

/// Reads, shows what is wrong in every form, renders what is right.
fn all_of_it(text: &str) {
    let strict = check(text, "p.yaml", Reading::Strict);
    match (check(text, "p.yaml", Reading::Lenient), strict) {
        (Ok((profile, said)), Ok((strict, _))) => {
            assert_eq!(profile, strict.of_host());
            assert!(said.errors.is_empty(), "{said:?}");
        }
        (Ok((profile, said)), Err(_)) => {
            render(&profile, &image(), &machine()).expect("recovery is any image");
            let _ = said.to_text(false);
        }
        // Refused is what has no fields.
        (Err(_), Err(said)) => assert!(said.errors.iter().all(|it| it.path.is_empty())),
        (Err(said), Ok(_)) => panic!("{said}"),
    }
    match parse_for(text, "p.yaml", &image()) {
        Err(diagnostics) => {
            assert!(!diagnostics.errors.is_empty());
            let lines = text.matches('\n').count() + 1;
            assert!(
                diagnostics
                    .errors
                    .iter()
                    .all(|e| (1..=lines).contains(&e.line) && e.column > 0)
            );
            assert!(diagnostics.to_text(false).contains("error"));
            let _ = (diagnostics.to_text(true), format!("{diagnostics:?}"));
        }
        Ok(profile) => {
            let rendered =
                render(&profile, &image(), &machine()).expect("it was checked for this image");
            for file in &rendered.files {
                let under = ["/etc/", "/run/"]
                    .iter()
                    .any(|dir| file.path.starts_with(dir));
                assert!(under && !file.path.contains("/../"), "{}", file.path);
            }
            let mut paths: Vec<_> = rendered.files.iter().map(|f| &f.path).collect();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), rendered.files.len(), "a path occurs twice");
        }
    }
}

/// Words that a profile is made of, and some that it is not.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "version",
        "1",
        "hostname",
        "network",
        "interfaces",
        "match",
        "name",
        "addresses",
        "192.0.2.1/24",
        "10.0.0.0/0",
        "::/0",
        "gateways",
        "dhcp",
        "true",
        "~",
        "null",
        "users",
        "ssh_keys",
        "password_hash",
        "kubernetes",
        "distribution",
        "kubeadm",
        "role",
        "init",
        "pod_cidr",
        "service_cidr",
        "10.43.0.0/16",
        "node_address",
        "10.44.0.1",
        "feature_gates",
        "health",
        "deadline",
        "1h",
        "5s",
        "workloads",
        "kind",
        "deployment",
        "vm",
        "none",
        "edge-{machine-id:8}",
        "-1",
        "1e999",
        "\u{feff}",
        "é",
        "-",
        "&a",
        "*a",
        "!t",
        "|",
        ">",
        "\"",
        "'",
        "%",
        "@",
        "`",
        "#",
        "---",
        "...",
        "?",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "\\PC{0,12}"]
}

/// Text that looks like YAML: words, and what holds them together.
fn yaml() -> impl Strategy<Value = String> {
    let joint = prop::sample::select(vec![
        ": ", "\n", "\n  ", "\n    ", "\n  - ", "\n- ", "{", "}", "[", "]", ", ", ",", " ", "\t",
        "\r\n", ":", "",
    ]);
    prop::collection::vec((word(), joint), 0..60).prop_map(|parts| {
        parts
            .into_iter()
            .map(|(word, joint)| word + joint)
            .collect()
    })
}

/// A right profile in which some characters were replaced.
fn damaged() -> impl Strategy<Value = String> {
    let sources = vec![
        include_str!("../../recipes/profiles/static.yaml"),
        include_str!("../../recipes/profiles/kubeadm-site.yaml"),
    ];
    let change = (
        any::<prop::sample::Index>(),
        0_usize..4,
        "[\\PC\\n\\t]{0,4}",
    );
    (
        prop::sample::select(sources),
        prop::collection::vec(change, 0..6),
    )
        .prop_map(|(source, changes)| {
            let mut text: Vec<char> = source.chars().collect();
            for (index, remove, insert) in changes {
                let at = index.index(text.len() + 1);
                let end = (at + remove).min(text.len());
                text.splice(at..end, insert.chars());
            }
            text.into_iter().collect()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn any_text(text in any::<String>()) {
        all_of_it(&text);
    }

    #[test]
    fn text_like_yaml(text in yaml()) {
        all_of_it(&text);
        all_of_it(&format!("version: 1\n{text}"));
    }

    #[test]
    fn damaged_profiles(text in damaged()) {
        all_of_it(&text);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn any_value_in_any_place(value in word()) {
        for place in ["version", "hostname", "network", "time", "users", "kubernetes", "vm", "health"] {
            all_of_it(&format!("version: 1\n{place}: {value}\n"));
        }
        for field in ["role", "pod_cidr", "service_cidr", "node_address", "max_pods", "cni", "feature_gates"] {
            all_of_it(&format!("version: 1\nkubernetes: {{distribution: kubeadm, role: init, {field}: {value}}}\n"));
        }
    }
}

fn cluster(rest: &str) -> String {
    format!("version: 1\nkubernetes: {{distribution: kubeadm, role: init, {rest}}}\n")
}

/// So many interfaces, matched by these names.
fn interfaces(count: usize, name: impl Fn(usize) -> String) -> String {
    let each = |n| format!("    - match: {{name: \"{}\"}}\n", name(n));
    let all: String = (0..count).map(each).collect();
    format!("version: 1\nnetwork:\n  interfaces:\n{all}")
}

/// How long this thread has run: what else the host does is no cost of ours. Source: proc_schedstat(5).
fn on_the_processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = stat.split(' ').next().map(str::parse);
    Duration::from_nanos(nanoseconds.expect("a field").expect("a number"))
}

#[test]
fn many_errors_cost_no_more_than_a_few() {
    for text in [
        (0..20_000)
            .map(|n| format!("a{n}: 1\n"))
            .collect::<String>(),
        "- password: x\n".repeat(15_000),
        format!("users: [{}]", "a, ".repeat(60_000)),
        format!("version: 1\nhostname: {}", "a".repeat(200_000)),
        "{a: ".repeat(60_000),
        "? ".repeat(100_000),
        // Right in shape: each is compared with others.
        cluster(&format!("api_names: [{}]", "a, ".repeat(60_000))),
        format!(
            "version: 1\nhealth: {{units: [{}]}}",
            "a.service, ".repeat(20_000)
        ),
        format!(
            "version: 1\nnetwork: {{dns: [{}]}}",
            "\"::\", ".repeat(30_000)
        ),
        interfaces(10_000, |n| format!("a*{n}*")),
        interfaces(64, |n| format!("{}{}", "*a".repeat(31), n % 10)),
        interfaces(64, |n| format!("{}{}", "a".repeat(62), n % 10)),
    ] {
        let begun = on_the_processor();
        all_of_it(&text);
        let spent = on_the_processor() - begun;
        assert!(spent.as_secs() < 20, "{spent:?} for {:?}…", &text[..30]);
    }
    let diagnostics = parse(
        &(0..20_000)
            .map(|n| format!("a{n}: 1\n"))
            .collect::<String>(),
        "p",
    )
    .expect_err("wrong");
    assert_eq!(
        (diagnostics.errors.len(), diagnostics.omitted),
        (100, 19_901)
    );
}
