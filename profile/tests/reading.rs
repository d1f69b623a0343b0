//! What a wrong profile is answered with.

use profile::{ImageFacts, parse, parse_for};

fn image(kubernetes: Option<&str>) -> ImageFacts {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": kubernetes.map(|name| serde_json::json!({"distribution": name, "version": "1.36.3"})),
    }))
    .expect("facts of an image")
}

/// (line, column, message) of every error.
fn errors(text: &str) -> Vec<(usize, usize, String)> {
    let diagnostics = parse(text, "p.yaml").expect_err("this profile is wrong");
    diagnostics
        .errors
        .into_iter()
        .map(|e| (e.line, e.column, e.message))
        .collect()
}

#[test]
fn a_damaged_state_is_erased_only_where_the_profile_says_so() {
    let image = image(None);
    let machine = profile::MachineFacts {
        machine_id: "0".repeat(32),
        boot_id: String::new(),
    };
    let erases = |text: &str| {
        let profile = parse(text, "p.yaml").expect("valid");
        let rendered = profile::render(&profile, &image, &machine).expect("renders");
        rendered.erases_damaged_state
    };
    assert!(!erases("version: 1\n"));
    assert!(!erases("version: 1\nstate: {}\n"));
    assert!(!erases("version: 1\nstate: {on_damage: keep}\n"));
    assert!(erases("version: 1\nstate: {on_damage: erase}\n"));
    let wrong = errors("version: 1\nstate:\n  on_damage: format\n");
    assert_eq!(
        (wrong.len(), wrong[0].0, wrong[0].1),
        (1, 3, 14),
        "{wrong:?}"
    );
}

#[test]
fn recovery_installs_only_what_the_profile_names() {
    let named = |text: &str| parse(text, "p.yaml").expect("valid").recovery.install;
    assert_eq!(named("version: 1\n"), None);
    assert_eq!(named("version: 1\nrecovery: {}\n"), None);
    let url = "https://images.example.com/edge/stable.spb?token=x";
    let text = format!("version: 1\nrecovery: {{install: \"{url}\"}}\n");
    assert_eq!(named(&text).map(String::from).as_deref(), Some(url));
    for sound in ["http://[2001:db8::1]/a.spb", "https://host:8443/a@1.spb"] {
        let text = format!("version: 1\nrecovery: {{install: \"{sound}\"}}\n");
        assert_eq!(named(&text).map(String::from).as_deref(), Some(sound));
    }
    for wrong in [
        "/mnt/bundle.spb",
        "https://",
        "https://:443/stable.spb",
        "https://host:8o80/stable.spb",
        "https://host:0/stable.spb",
        "https://me:sec/ret@host/stable.spb",
        "https:///stable.spb",
        "https://me:secret@host/stable.spb",
        "https://host/a bundle.spb",
        "ftp://host/stable.spb?secret",
    ] {
        let text = format!("version: 1\nrecovery:\n  install: \"{wrong}\"\n");
        let found = errors(&text);
        assert_eq!((found.len(), found[0].0), (1, 3), "{wrong}: {found:?}");
        // Not in the message, nor in the line that is shown with it.
        let shown = parse(&text, "p.yaml").unwrap_err().to_string();
        assert!(
            !shown.contains("secret") && !shown.contains("sec/ret"),
            "{shown}"
        );
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let text = "\
version: 1
hsotname: edge
network:
  interfaces:
    - match: {name: enp1s0}
      addresses: [192.0.2.10]
      gateways: [198.51.100.1]
users:
  - name: root
    admin: yes
kubernetes:
  distribution: kubeadm
  role: worker
";
    let all = errors(text);
    let places: Vec<_> = all
        .iter()
        .map(|(line, column, _)| (*line, *column))
        .collect();
    assert_eq!(
        places,
        [(2, 1), (6, 19), (9, 11), (10, 12), (13, 9)],
        "{all:#?}"
    );
    let shown = parse(text, "p.yaml").expect_err("wrong").to_text(false);
    for part in [
        "p.yaml:2:1",
        "did you mean `hostname`?",
        "the prefix length is missing: 192.0.2.10/24?",
        "`root` belongs to the system",
        "write `true`, without quotes",
        "p.yaml:13:9",
        "known: init",
        "p.yaml: 5 errors",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in:\n{shown}");
    }
}

#[test]
fn what_does_not_fit_together() {
    let text = "\
version: 1
network:
  interfaces:
    - match: {name: enp1s0}
      addresses: [192.0.2.10/24]
      gateways: [198.51.100.1]
    - match: {}
users:
  - name: ann
  - name: ann
    password_hash: $6$abcdefgh$0123456789012345678901234567890123456789
health: {node_ready: true, deadline: 5s, settle: 5s}
";
    let messages: Vec<_> = errors(text)
        .into_iter()
        .map(|(l, c, m)| format!("{l}:{c} {m}"))
        .collect();
    assert_eq!(
        messages,
        [
            "6:18 the gateway 198.51.100.1 is in no network of this interface",
            "7:14 this matches no interface in particular",
            "9:5 `ann` could never log in",
            "10:11 `ann` is the name of users[0] already",
            "12:22 `node_ready` needs Kubernetes, and this profile has none",
            "12:38 no machine is well after 5s",
            "12:50 `settle` (5s) must be shorter than `deadline` (5s)",
        ]
    );
}

#[test]
fn a_distribution_that_the_image_lacks_is_refused_with_both_names() {
    let known = "version: 1\nkubernetes: {distribution: kubeadm, role: init}\n";
    let unknown = "version: 1\nkubernetes: {distribution: k3s, role: init}\n";
    for (text, has, names) in [
        (known, Some("k3s"), ["`kubeadm`", "`k3s`"]),
        (unknown, Some("kubeadm"), ["`k3s`", "`kubeadm`"]),
        (known, None, ["`kubeadm`", "none"]),
    ] {
        let refused = parse_for(text, "p.yaml", &image(has)).expect_err("refused");
        assert_eq!(refused.errors.len(), 1);
        let error = &refused.errors[0];
        assert_eq!((error.line, error.column), (2, 28));
        assert!(
            names.iter().all(|name| error.message.contains(name)),
            "{}",
            error.message
        );
    }
    parse_for(known, "p.yaml", &image(Some("kubeadm"))).expect("fits");
}

#[test]
fn yaml_that_is_none() {
    for (text, line, part) in [
        ("", 1, "this file is empty"),
        ("# only this\n", 1, "this file is empty"),
        ("# comment\nversion: 2 # two\n", 2, "must be 1"),
        ("version: 1\nhostname: \"edge\n", 2, "not valid YAML"),
        ("version: 1\nnetwork:\n\tdns: []\n", 3, "not valid YAML"),
        ("version: 1\nversion: 1\n", 2, "given twice"),
        ("version: &a 1\nhostname: *a\n", 1, "anchors"),
        ("version: !int 1\n", 1, "tags"),
        ("version: 1\n---\nversion: 1\n", 2, "second document"),
        (
            "- version: 1\n",
            1,
            "a profile is a mapping, this is a list",
        ),
        ("version: 2\n", 1, "`version` must be 1, not 2"),
        ("hostname: edge\n", 1, "`version` is missing"),
        ("version: 1\nusers: ann\n", 2, "`users` is a list"),
        ("version: 1\nhostname: true\n", 2, "`hostname` is text"),
        (
            "version: 1\nhostname:\n",
            2,
            "`hostname` is text, this is nothing",
        ),
        ("version: 1\nhostname: Edge_1\n", 2, "lower-case"),
        ("version: 1\nhostname: a{serial}\n", 2, "only {machine-id}"),
        (
            "version: 1\nkubernetes: {role: init}\n",
            2,
            "`distribution` is missing",
        ),
        (
            "version: 1\nkubernetes: {distribution: kubeadm}\n",
            2,
            "`role` is missing",
        ),
    ] {
        let all = errors(text);
        assert!(all[0].2.contains(part), "{text:?}: {all:?}");
        assert_eq!(all[0].0, line, "{text:?}: {all:?}");
    }
    let deep = format!("version: {}", "[".repeat(5000));
    assert!(!errors(&deep).is_empty());
    let long = "# ".repeat(200_000);
    assert!(errors(&long)[0].2.contains("a profile has at most"));
}

#[test]
fn secrets_are_not_shown() {
    for text in [
        "version: 1\nusers: [{name: ann, password_hash: hunter2}]\n",
        "version: 1\nusers:\n  - name: ann\n    password_hash:\n      - hunter2\n",
        "version: 1\nusers:\n  - name: ann\n    password_hash: \"hunter2\n",
        "version: 1\nusers:\n  - name: ann\n    password: hunter2\n",
        "version: 1\nnetwork: {proxy: {url: hunter2}}\n",
        "version: 1\nnetwork: {proxy: {url: [hunter2]}}\n",
        "version: 1\nnetwork: {proxy: {url: \"http://ann:hunter2/@proxy:1\"}}\n",
        "version: 1\nnetwork: {proxy: {url: \"http://ann:hunter2@proxy:1\", exept: [a]}}\n",
        "version: 1\nnetwork: {proxy: \"http://ann:hunter2@proxy:1\"}\n",
        "version: 1\nnetwork:\n  proxy:\n    url: >-\n      http://ann:hunter2@proxy:x\n",
    ] {
        let diagnostics = parse(text, "p.yaml").expect_err("wrong");
        let shown = format!(
            "{diagnostics} {diagnostics:?} {}",
            serde_json::to_string(&diagnostics).expect("JSON")
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\n      c2VjcmV0\n      -----END OPENSSH PRIVATE KEY-----";
    let text = format!("version: 1\nusers:\n  - name: ann\n    ssh_keys:\n    - |\n      {key}\n");
    let diagnostics = parse(&text, "p.yaml").expect_err("wrong");
    assert!(
        diagnostics.errors[0].message.contains("private key"),
        "{diagnostics}"
    );
    assert!(
        !format!("{diagnostics} {diagnostics:?}").contains("c2VjcmV0"),
        "{diagnostics}"
    );
}

#[test]
fn optional_values_may_be_left_empty() {
    let profile = parse(
        "version: 1\nkubernetes:\nhealth: {node_ready: ~}\n",
        "p.yaml",
    )
    .expect("valid");
    assert!(profile.kubernetes.is_none());
    assert_eq!(profile.health.deadline.to_string(), "10m");
}

#[test]
fn a_profile_is_shown_without_its_secrets() {
    let text = "version: 1\nusers:\n  - name: admin\n    password_hash: >-\n      $6$salt$hash\n    admin: true\n";
    let shown = profile::without_secrets(text).unwrap();
    assert!(
        !shown.contains("salt") && shown.contains("admin: true"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), text.lines().count());
    let proxy = "version: 1\nnetwork:\n  proxy:\n    url: >-\n      http://me:hunter2@\n      proxy:1\n    except: [10.0.0.0/8]\n";
    let shown = profile::without_secrets(proxy).unwrap();
    assert!(
        !shown.contains("hunter2") && shown.contains("10.0.0.0/8"),
        "{shown}"
    );
    assert_eq!(profile::without_secrets("users: ["), None);
}
