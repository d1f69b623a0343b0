//! What is run, in which order, and how health is told.

use std::net::IpAddr;

use super::Cluster;
use super::config::{ADDONS, CONFIG, SOCKET};
use crate::contribution::QUESTION;
use crate::kubernetes::Context;
use crate::schema::WorkloadKind;
use crate::{Blame, Check, Condition, Lane, Probe, Question, Step};

const KUBEADM: &str = "/usr/bin/kubeadm";
pub(super) const ADMIN: &str = "/etc/kubernetes/admin.conf";
const IMAGE: &str = "/usr/lib/sternpost/kubernetes/image.tar";

const NOTES: &str = "/etc/kubernetes/sternpost";
/// A cluster is being made, from nothing.
const BEGUN: &str = "/etc/kubernetes/sternpost/begun";
/// Holds the key of the configuration that the cluster was made or last brought forward with.
const CLUSTER: &str = "/etc/kubernetes/sternpost/cluster";
/// The same for what was applied in it.
const APPLIED: &str = "/etc/kubernetes/sternpost/addons";
/// Keys and certificates, kubeadm's first files. `kubeadm reset` empties the folder and leaves it.
const PKI: &str = "/etc/kubernetes/pki";
/// Who has this key has had a cluster.
const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";
/// Made from the keys, each time that a cluster is begun.
const KUBECONFIGS: [&str; 5] = [
    ADMIN,
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
];
/// etcd makes this folder when it runs for the first time, before it answers anybody.
const DATABASE: &str = "/var/lib/etcd/member";

/// As long as kubeadm itself may wait, and a little more.
const LONG: u64 = 15 * 60;

fn exists(path: &str) -> Condition {
    Condition::Exists { path: path.into() }
}

fn missing(path: &str) -> Condition {
    Condition::Missing { path: path.into() }
}

/// Whether what was noted is not the key in force, or nothing.
fn differs(path: &str, key: &str) -> Condition {
    Condition::Differs {
        path: path.into(),
        content: key.into(),
    }
}

/// One phase of kubeadm's, each of which may be run again.
fn phase(name: &str, words: &[&str]) -> Step {
    let command = [&[KUBEADM, "init", "phase"], words, &["--config", CONFIG]].concat();
    Step::run(name, &command).within(LONG)
}

/// What waits for what:
///
/// ```text
/// container runtime ─┬─ control plane image
///                    └─ node ─┬─ cluster settings
///                             └─ kube-proxy
/// ```
///
/// The kubelet does not wait for the image: on a full disk that refuses it, the kubelet is what makes room.
pub(super) fn lanes(cluster: &Cluster, key: &str) -> Vec<Lane> {
    const RUNTIME: &str = "container runtime";
    const NODE: &str = "node";
    vec![
        Lane::new(RUNTIME, &[], vec![Step::start("containerd.service")]),
        Lane::new("control plane image", &[RUNTIME], vec![import()]),
        Lane::new(NODE, &[RUNTIME], node(cluster, key)),
        Lane::new("cluster settings", &[NODE], cluster_settings(key)),
        Lane::new("kube-proxy", &[NODE], vec![kube_proxy(key)]),
    ]
}

/// Every time: it costs a second, and what is in the store may be older than this image.
fn import() -> Step {
    Step::run(
        "import the image of the control plane",
        &[
            "/usr/bin/ctr",
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--local",
            IMAGE,
        ],
    )
    .within(180)
    .tries(3, 2)
}

/// From a container runtime to an API server that answers.
fn node(cluster: &Cluster, key: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    if cluster.node.address.is_none() {
        steps.push(own_address(cluster.endpoint.address));
    }
    steps.extend(create(key));
    // Another version of Kubernetes or other settings than the cluster was left with, or nobody
    // knows which. Before the kubelet starts: what lies on the disk.
    for step in [
        Step::run(
            "renew the certificates",
            &[KUBEADM, "certs", "renew", "all", "--config", CONFIG],
        )
        .within(LONG),
        phase("write the pod of etcd anew", &["etcd", "local"]),
        phase(
            "write the pods of the control plane anew",
            &["control-plane", "all"],
        ),
        phase("configure the kubelet anew", &["kubelet-start"]),
    ] {
        steps.push(step.only_if(&[differs(CLUSTER, key)]));
    }
    steps.push(Step::start("kubelet.service"));
    steps.push(Step::ask("wait for the API server", ADMIN, Question::ApiReady).tries(150, 5));
    steps
}

/// What is kept in the cluster, brought forward after it runs.
fn cluster_settings(key: &str) -> Vec<Step> {
    [
        phase(
            "keep the new configuration in the cluster",
            &["upload-config", "all"],
        ),
        phase(
            "bring the node's permissions forward",
            &["bootstrap-token", "--skip-token-print"],
        ),
        phase("bring CoreDNS forward", &["addon", "coredns"]).leaves(CLUSTER, key),
    ]
    .map(|step| step.only_if(&[differs(CLUSTER, key)]).tries(3, 5))
    .into()
}

fn kube_proxy(key: &str) -> Step {
    Step::apply("apply kube-proxy", ADMIN, ADDONS)
        .only_if(&[differs(APPLIED, key)])
        .within(180)
        .tries(10, 5)
        .leaves(APPLIED, key)
}

/// Makes a cluster where there is none: from "nothing" over "begun" to "made".
fn create(key: &str) -> Vec<Step> {
    let nothing = [
        missing(CLUSTER),
        missing(BEGUN),
        missing(CA_KEY),
        missing(DATABASE),
    ];
    let begun = [missing(CLUSTER), exists(BEGUN)];
    let clear = Step::run(
        "clear a cluster that never ran",
        &[KUBEADM, "reset", "--force", "--cri-socket", SOCKET],
    )
    .only_if(&begun)
    .only_if(&[exists(PKI), missing(DATABASE)])
    .within(LONG);
    [
        Step::run(
            "forget what an earlier cluster was given",
            &["/usr/bin/rm", "-f", APPLIED],
        )
        .only_if(&nothing),
        Step::run(
            "begin a cluster",
            &["/usr/bin/mkdir", "-p", "-m", "0700", NOTES],
        )
        .only_if(&nothing)
        .leaves(BEGUN, key),
        clear.clone(),
        phase("make the keys of the cluster", &["certs", "all"])
            .only_if(&begun)
            .tries(3, 5)
            .recover(clear),
        // One that a cut left empty, or that is of other keys, would stop kubeadm for ever.
        Step::run(
            "remove earlier kubeconfigs",
            &[&["/usr/bin/rm", "-f"], &KUBECONFIGS[..]].concat(),
        )
        .only_if(&begun),
        phase("make the kubeconfigs", &["kubeconfig", "all"]).only_if(&begun),
        // On the disk before etcd runs: from then on nothing is made again.
        Step::run(
            "write the keys to the disk",
            &["/usr/bin/sync", "--file-system", "/etc/kubernetes"],
        )
        .only_if(&begun)
        .within(LONG),
        Step::run(
            "create the cluster",
            &[KUBEADM, "init", "--config", CONFIG, "--skip-token-print"],
        )
        .only_if(&begun)
        .within(2 * LONG)
        .tries(3, 5),
        Step::run("note that the cluster is made", &["/usr/bin/rm", BEGUN])
            .only_if(&begun)
            .leaves(CLUSTER, key),
    ]
    .into()
}

/// The node's own address, on the loopback interface.
fn own_address(address: IpAddr) -> Step {
    let with_prefix = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    Step::run(
        "give the node its own address",
        &[
            "/usr/sbin/ip",
            "address",
            "replace",
            &with_prefix,
            "dev",
            "lo",
        ],
    )
    .tries(3, 1)
}

pub(super) fn checks(context: &Context<'_>) -> Vec<Check> {
    let health = &context.profile.health;
    let mut checks = vec![check(
        "the API server is ready",
        Question::ApiReady,
        Blame::Image,
    )];
    if health.node_ready.unwrap_or(true) {
        checks.push(check(
            &format!("node {} is Ready", context.hostname),
            Question::NodeReady {
                node: context.hostname.to_owned(),
                boot_id: context.machine.boot_id.clone(),
            },
            Blame::Image,
        ));
    }
    for workload in &health.workloads {
        let kind = match workload.kind {
            WorkloadKind::Deployment => "deployment",
            WorkloadKind::DaemonSet => "daemonset",
            WorkloadKind::StatefulSet => "statefulset",
        };
        checks.push(check(
            &format!("{kind} {}/{} is up", workload.namespace, workload.name),
            Question::RolledOut(workload.clone()),
            Blame::Site,
        ));
    }
    checks
}

fn check(name: &str, question: Question, blame: Blame) -> Check {
    Check {
        name: name.into(),
        probe: Probe::Kubernetes {
            kubeconfig: ADMIN.into(),
            question,
        },
        blame,
        timeout: QUESTION,
    }
}
