//! What the schema cannot say: how values have to fit together.

use std::collections::{BTreeMap, BTreeSet};

use super::{Health, Profile, addresses, interfaces, names, servers};
use crate::EffectiveFacts;
use crate::diagnostics::Problem;
use crate::kubernetes::Cni;

/// Everything that does not fit together.
pub(crate) fn problems(profile: &Profile) -> Vec<Problem> {
    let network = &profile.network;
    let mut problems = interfaces::problems(&network.interfaces);
    for (n, interface) in network.interfaces.iter().enumerate() {
        problems.extend(addresses::of_interface(n, interface));
    }
    problems.extend(addresses::twice(&network.interfaces));
    problems.extend(servers::problems(profile));
    problems.extend(names::problems(profile));
    problems.extend(user_problems(profile));
    problems.extend(health_problems(profile));
    if let Some(kubernetes) = &profile.kubernetes {
        let cluster = kubernetes.cluster();
        problems.extend(servers::inside_the_cluster(profile, &cluster));
        problems.extend(addresses::around_the_cluster(profile, &cluster));
        problems.extend(addresses::of_others(&cluster));
        problems.extend(names::of_cluster(profile, &cluster));
        problems.extend(kubernetes.distribution().check(&cluster, network));
    }
    problems.extend(profile.vm.runtime().check(profile));
    problems
}

fn user_problems(profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for (n, user) in profile.users.iter().enumerate() {
        let n = n.to_string();
        if let Some(first) = seen.insert(user.name.as_str(), n.clone()) {
            problems.push(Problem::new(
                ["users", &n, "name"],
                format!("`{}` is the name of users[{first}] already", user.name),
                Some("merge the two or choose another name".into()),
            ));
        }
        if user.ssh_keys.is_empty() && user.password_hash.is_none() {
            problems.push(Problem::new(
                ["users", &n],
                format!("`{}` could never log in", user.name),
                Some("add `ssh_keys`, or `password_hash` for the console".into()),
            ));
        }
        // What comes after the key itself is a comment.
        let keys = user.ssh_keys.iter().map(|it| it.body());
        for (k, is_twice) in names::repeats(keys).into_iter().enumerate() {
            if is_twice {
                problems.push(Problem::warning(
                    ["users", &n, "ssh_keys", &k.to_string()],
                    format!("`{}` has this key already", user.name),
                    "remove it; was another one meant?",
                ));
            }
        }
    }
    problems
}

/// From here on a machine with a cluster has the time that it takes.
const CLUSTER_SECONDS: u64 = 120;
/// From here on a machine that is not well runs a bad version for a long time.
const LONG_SECONDS: u64 = 2 * 60 * 60;

fn health_problems(profile: &Profile) -> Vec<Problem> {
    let health = &profile.health;
    let mut problems = Vec::new();
    if health.deadline.duration().as_secs() < 10 {
        problems.push(Problem::new(
            ["health", "deadline"],
            format!("no machine is well after {}", health.deadline),
            Some("the shortest deadline is 10s; 10m is usual".into()),
        ));
    }
    let seconds = health.deadline.duration().as_secs();
    if profile.kubernetes.is_some() && (10..CLUSTER_SECONDS).contains(&seconds) {
        problems.push(Problem::warning(
            ["health", "deadline"],
            format!("a cluster is rarely up after {}", health.deadline),
            "a version that is well would be given up: 10m is usual",
        ));
    } else if seconds > LONG_SECONDS {
        problems.push(Problem::warning(
            ["health", "deadline"],
            format!("a version that is not well runs for {}", health.deadline),
            "10m is usual",
        ));
    }
    if health.settle >= health.deadline {
        problems.push(Problem::new(
            ["health", "settle"],
            format!(
                "`settle` ({}) must be shorter than `deadline` ({})",
                health.settle, health.deadline
            ),
            None,
        ));
    }
    let cni = profile
        .kubernetes
        .as_ref()
        .map(|it| it.cluster().settings.cni);
    if cni == Some(Cni::None) && health.node_ready.is_none() {
        problems.push(Problem::warning(
            ["kubernetes", "cni"],
            format!(
                "the node is Ready once a network plugin runs, and has {} for it",
                health.deadline
            ),
            "if that is meant, say `health: {node_ready: true}`; if nobody installs one by then, false",
        ));
    }
    problems.extend(unit_problems(health));
    if profile.kubernetes.is_none() {
        let needs = |field: &str| {
            Problem::new(
                ["health", field],
                format!("`{field}` needs Kubernetes, and this profile has none"),
                Some("add `kubernetes:` or remove it".into()),
            )
        };
        if health.node_ready == Some(true) {
            problems.push(needs("node_ready"));
        }
        if !health.workloads.is_empty() {
            problems.push(needs("workloads"));
        }
    }
    problems
}

fn unit_problems(health: &Health) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ignored = &health.ignore_units;
    let may_fail: BTreeSet<_> = ignored.iter().collect();
    for (field, units) in [("units", &health.units), ("ignore_units", ignored)] {
        let at = |n: usize| ["health", field, &n.to_string()].map(str::to_owned);
        for (n, (unit, is_twice)) in units.iter().zip(names::repeats(units)).enumerate() {
            if is_twice {
                let message = format!("{unit} is named twice");
                problems.push(Problem::warning(at(n), message, "keep one of them"));
            } else if unit.is_template() {
                let message = format!("{unit} is a template, which never runs itself");
                let help = "name one of its units, such as `getty@tty1.service`".to_owned();
                problems.push(Problem::new(at(n), message, Some(help)));
            } else if field == "units" && may_fail.contains(unit) {
                let message = format!("{unit} must be active, and may fail");
                problems.push(Problem::warning(
                    at(n),
                    message,
                    "name it in one of the two",
                ));
            }
        }
    }
    if !health.no_failed_units && !ignored.is_empty() {
        problems.push(Problem::warning(
            ["health", "ignore_units"],
            "any unit may fail, with `no_failed_units: false`".into(),
            "remove one of the two",
        ));
    }
    problems
}

/// What a machine with these facts cannot be.
pub(crate) fn problems_with_facts(profile: &Profile, facts: EffectiveFacts<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(kubernetes) = &profile.kubernetes {
        let wanted = kubernetes.distribution().name();
        let present = facts.kubernetes().map(|k| k.distribution.as_str());
        if present != Some(wanted) {
            let (message, help) = not_in_image("Kubernetes distribution", wanted, present);
            problems.push(Problem::new(
                ["kubernetes", "distribution"],
                message,
                Some(help),
            ));
        }
    }
    let wanted = profile.vm.runtime().name();
    if wanted != "none" && !facts.vm().iter().any(|name| name == wanted) {
        let present: Vec<&str> = facts.vm().iter().map(String::as_str).collect();
        let present = (!present.is_empty()).then(|| present.join(", "));
        let (message, help) = not_in_image("VM runtime", wanted, present.as_deref());
        problems.push(Problem::new(["vm"], message, Some(help)));
    }
    problems
}

/// Message and help for something that the image does not have.
pub(crate) fn not_in_image(what: &str, wanted: &str, present: Option<&str>) -> (String, String) {
    match present {
        Some(present) => (
            format!("the {what} `{wanted}` is not in this image, which has `{present}`"),
            format!("write `{present}`, or use an image with `{wanted}`"),
        ),
        None => (
            format!("the {what} `{wanted}` is not in this image, which has none"),
            format!("use an image with `{wanted}`"),
        ),
    }
}
