//! What profiles turn into, file by file: `tests/golden/NAME/` holds what recipes/profiles/NAME.yaml
//! renders to. `UPDATE_GOLDEN=1 cargo test -p profile` writes it anew; the diff is then to be read, and gets a row in
//! docs/changes-in-rendering.md, because running clusters are rendered for too.

#![allow(clippy::unwrap_used)] // writing to a String cannot fail

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use profile::{Condition, ImageFacts, MachineFacts, Probe, Rendered, Step, Work};

fn here() -> PathBuf {
    PathBuf::from(env!("STERNPOST_SOURCE")).join("profile")
}

fn image(kubernetes: bool, architecture: &str) -> ImageFacts {
    let facts = serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": architecture, "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12.48",
        "kubernetes": kubernetes.then(|| serde_json::json!({"distribution": "kubeadm", "version": "1.36.3"})),
    });
    serde_json::from_value(facts).expect("facts of an image")
}

fn machine() -> MachineFacts {
    MachineFacts {
        machine_id: "0f3b5c1a2d4e46788a9bacbdcedfe0f1".into(),
        boot_id: "5d0f8f2a-8a4f-4bb8-9a62-0d0d9c7a1e11".into(),
    }
}

fn render(name: &str, kubernetes: bool, architecture: &str) -> Rendered {
    let path = here().join(format!("../recipes/profiles/{name}.yaml"));
    let text = fs::read_to_string(&path).expect("a profile");
    let image = image(kubernetes, architecture);
    let profile = profile::parse_for(&text, &format!("{name}.yaml"), &image)
        .unwrap_or_else(|e| panic!("{e}"));
    profile::render(&profile, &image, &machine()).expect("it renders")
}

fn describe_step(out: &mut String, step: &Step) {
    let Step {
        name,
        work,
        conditions,
        stamp,
        recover,
        attempts,
        pause,
        required,
    } = step;
    writeln!(out, "step: {name}").unwrap();
    for condition in conditions {
        match condition {
            Condition::Exists { path } => writeln!(out, "  if {path} exists"),
            Condition::Missing { path } => writeln!(out, "  if {path} is missing"),
            Condition::Differs { path, content } => writeln!(out, "  if {path} is not {content:?}"),
        }
        .unwrap();
    }
    let within = match work {
        Work::Start { .. } => String::new(),
        Work::Run {
            command,
            env,
            timeout,
        } => {
            for (key, value) in env {
                writeln!(out, "  {key}={value}").unwrap();
            }
            writeln!(out, "  $ {}", command.join(" ")).unwrap();
            format!("{timeout:?}, ")
        }
        Work::Ask {
            kubeconfig,
            question,
            timeout,
        } => {
            writeln!(out, "  ask {question:?} by {kubeconfig}").unwrap();
            format!("{timeout:?}, ")
        }
        Work::Apply {
            kubeconfig,
            file,
            timeout,
        } => {
            writeln!(out, "  apply {file} by {kubeconfig}").unwrap();
            format!("{timeout:?}, ")
        }
    };
    if let Some(stamp) = stamp {
        writeln!(out, "  then {} = {:?}", stamp.path, stamp.content).unwrap();
    }
    if let Some(recover) = recover {
        write!(out, "  before another attempt ").unwrap();
        describe_step(out, recover);
    }
    let after = if *required { "" } else { ", may fail" };
    writeln!(out, "  {within}{attempts} attempts, {pause:?} apart{after}").unwrap();
}

/// Everything but the files, for people.
fn describe(rendered: &Rendered) -> String {
    let mut out = format!("hostname: {}\n\n# early\n", rendered.hostname);
    rendered
        .early
        .iter()
        .for_each(|step| describe_step(&mut out, step));
    for lane in &rendered.lanes {
        let after = if lane.after.is_empty() {
            String::new()
        } else {
            format!(", after {}", lane.after.join(", "))
        };
        writeln!(out, "\n# lane: {}{after}", lane.name).unwrap();
        lane.steps
            .iter()
            .for_each(|step| describe_step(&mut out, step));
    }
    let health = &rendered.health;
    writeln!(
        out,
        "\n# health\ndeadline {:?}, settle {:?}",
        health.deadline, health.settle
    )
    .unwrap();
    writeln!(
        out,
        "failed units count: {}, except {:?}",
        health.units_failed, health.units_ignored
    )
    .unwrap();
    writeln!(
        out,
        "active: {:?}\nreboot when good: {}",
        health.units, health.gate_reboots_good
    )
    .unwrap();
    for check in &health.checks {
        let looks = match &check.probe {
            Probe::Command { command, expect } => {
                format!("$ {}\n  expects {expect:?}", command.join(" "))
            }
            Probe::Kubernetes {
                kubeconfig,
                question,
            } => format!("ask {question:?} by {kubeconfig}\n  holds"),
        };
        writeln!(
            out,
            "check: {}\n  {looks} within {:?}, else the {:?}",
            check.name, check.timeout, check.blame
        )
        .unwrap();
    }
    out
}

fn tree(rendered: &Rendered) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::from([(PathBuf::from("rendered.txt"), describe(rendered))]);
    let mut list = String::new();
    let mut files: Vec<_> = rendered.files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in files {
        writeln!(list, "{:04o} {:?} {}", file.mode, file.when, file.path).unwrap();
        let content = String::from_utf8(file.content.clone()).expect("text");
        let path = Path::new("files").join(file.path.trim_start_matches('/'));
        assert!(
            tree.insert(path, content).is_none(),
            "{} is rendered twice",
            file.path
        );
    }
    tree.insert("files.txt".into(), list);
    tree
}

fn read_tree(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(root.join(below))
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            read_tree(root, &path, found);
        } else {
            found.insert(path, fs::read_to_string(entry.path()).expect("text"));
        }
    }
}

fn golden(name: &str, kubernetes: bool) {
    let wanted = tree(&render(name, kubernetes, "x86_64"));
    let root = here().join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&root);
        for (path, content) in &wanted {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, content).expect("written");
        }
    }
    let mut found = BTreeMap::new();
    read_tree(&root, Path::new(""), &mut found);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        wanted.keys().collect::<Vec<_>>(),
        "other files"
    );
    for (path, content) in &wanted {
        assert_eq!(&found[path], content, "{}", path.display());
    }
}

#[test]
fn minimal() {
    golden("minimal", false);
}

#[test]
fn fixed_addresses() {
    golden("static", false);
}

#[test]
fn kubeadm() {
    golden("kubeadm", true);
}

#[test]
fn kubeadm_with_settings() {
    golden("kubeadm-site", true);
}

#[test]
fn a_proxy_and_nothing_else() {
    golden("proxy", true);
}

/// The password of a proxy is in files that root alone reads, and in nothing else that is rendered.
#[test]
fn the_proxys_password_is_in_files_of_roots_alone() {
    let rendered = render("proxy", true, "x86_64");
    let holds =
        |file: &&profile::File| String::from_utf8_lossy(&file.content).contains("press:example");
    let holding = rendered.files.iter().filter(holds);
    let mut holding: Vec<_> = holding.map(|it| (it.path.as_str(), it.mode)).collect();
    holding.sort_unstable();
    assert_eq!(
        holding,
        [
            ("/etc/profile.d/50-sternpost-proxy.sh", 0o600),
            (profile::PROXY_SETTINGS, 0o600),
        ]
    );
    let shown = format!("{rendered:?}{}", serde_json::to_string(&rendered).unwrap());
    assert!(!shown.contains("press:example"), "{shown}");
}

/// Everything that kubeadm and kubectl get is the same on both architectures, but for the loader that
/// programs with libraries need.
#[test]
fn arm64_has_no_lib64() {
    let text = |rendered: &Rendered| {
        let files = rendered
            .files
            .iter()
            .map(|f| String::from_utf8_lossy(&f.content).into_owned());
        files.collect::<String>()
    };
    assert!(text(&render("kubeadm", true, "x86_64")).contains("/lib64"));
    assert!(!text(&render("kubeadm", true, "aarch64")).contains("/lib64"));
}

/// A new image's Kubernetes, and changed settings, change the key that brings a cluster forward;
/// nothing else does.
#[test]
fn the_key_follows_version_and_settings() {
    let key = |text: &str, version: &str, boot: &str| {
        let mut image = image(true, "x86_64");
        image.kubernetes.as_mut().expect("kubernetes").version = version.into();
        let machine = MachineFacts {
            boot_id: boot.into(),
            ..machine()
        };
        let profile = profile::parse(text, "p").expect("valid");
        let rendered = profile::render(&profile, &image, &machine).expect("renders");
        let mut steps = rendered.lanes.iter().flat_map(|lane| &lane.steps);
        let stamp = steps.find_map(|step| step.stamp.clone());
        stamp.expect("a stamp").content
    };
    let base = "version: 1\nkubernetes: {distribution: kubeadm, role: init}\n";
    let proxy = format!("{base}network: {{proxy: {{url: \"http://proxy:3128\"}}}}\n");
    assert_eq!(key(base, "1.36.3", "a"), key(&proxy, "1.36.3", "a"));
    let more = "version: 1\nkubernetes: {distribution: kubeadm, role: init, max_pods: 50}\n";
    assert_eq!(key(base, "1.36.3", "a"), key(base, "v1.36.3", "b"));
    assert_ne!(key(base, "1.36.3", "a"), key(base, "1.36.4", "a"));
    assert_ne!(key(base, "1.36.3", "a"), key(more, "1.36.3", "a"));
}

/// A lane that waited for one that is not there, or for itself, would wait for ever.
#[test]
fn lanes_wait_only_for_lanes_before_them() {
    for profile in ["minimal", "static", "kubeadm", "kubeadm-site"] {
        let mut before: Vec<String> = Vec::new();
        for lane in render(profile, profile.starts_with("kubeadm"), "x86_64").lanes {
            assert!(!before.contains(&lane.name), "{}: twice", lane.name);
            let known = lane.after.iter().all(|name| before.contains(name));
            assert!(known, "{}: after {:?}", lane.name, lane.after);
            before.push(lane.name);
        }
    }
}
