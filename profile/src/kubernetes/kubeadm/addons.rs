//! kube-proxy as kubeadm installs it, with its program and `nft` from the root.
//!
//! `nft` is a program with libraries: the pod sees the host's /usr, and /lib as a way into it (that
//! is where both architectures' loaders are found; on x86_64 also by /lib64).

use serde_json::{Value, json};

use super::Cluster;
use super::config::PROGRAMS;

pub(super) fn kube_proxy(cluster: &Cluster, version: &str, architecture: &str) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": "kube-proxy", "namespace": "kube-system" },
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "kubeadm:node-proxier" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:node-proxier",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": "kube-proxy", "namespace": "kube-system" }],
        }),
        config_map(cluster),
        daemon_set(version, architecture),
    ]
}

fn config_map(cluster: &Cluster) -> Value {
    let address = cluster.endpoint.address;
    let host = if address.is_ipv4() {
        address.to_string()
    } else {
        format!("[{address}]")
    };
    let everywhere = if address.is_ipv4() {
        "0.0.0.0/0"
    } else {
        "::/0"
    };
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default", "cluster": {
            "certificate-authority": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
            "server": format!("https://{host}:6443"),
        } }],
        "contexts": [{ "name": "default", "context": {
            "cluster": "default", "namespace": "default", "user": "default",
        } }],
        "current-context": "default",
        "users": [{ "name": "default", "user": {
            "tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
        } }],
    });
    let mut proxy = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": if address.is_ipv4() { "0.0.0.0" } else { "::" },
        "clientConnection": { "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf" },
        "clusterCIDR": super::config::list(&cluster.pods),
        "mode": "nftables",
        // By default only the node's own address, which may be one that nobody outside can reach.
        "nodePortAddresses": [everywhere],
    });
    if !cluster.settings.feature_gates.is_empty() {
        proxy["featureGates"] = json!(cluster.settings.feature_gates);
    }
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": { "app": "kube-proxy" } },
        "data": {
            "config.conf": crate::kubernetes::yaml::to_string(&proxy),
            "kubeconfig.conf": crate::kubernetes::yaml::to_string(&kubeconfig),
        },
    })
}

fn daemon_set(version: &str, architecture: &str) -> Value {
    let mount =
        |name: &str, path: &str| json!({ "name": name, "mountPath": path, "readOnly": true });
    let host = |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } });
    let mut mounts = vec![
        mount("kube-proxy", "/var/lib/kube-proxy"),
        mount("usr", "/usr"),
        mount("lib", "/lib"),
    ];
    let mut volumes = vec![
        json!({ "name": "kube-proxy", "configMap": { "name": "kube-proxy" } }),
        host("usr", "/usr"),
        host("lib", "/usr/lib"),
    ];
    if architecture == "x86_64" {
        mounts.push(mount("lib64", "/lib64"));
        volumes.push(host("lib64", "/usr/lib64"));
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "kube-proxy", "namespace": "kube-system", "labels": { "k8s-app": "kube-proxy" } },
        "spec": {
            "selector": { "matchLabels": { "k8s-app": "kube-proxy" } },
            "updateStrategy": { "type": "RollingUpdate" },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-proxy" } },
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "tolerations": [{ "operator": "Exists" }],
                    "containers": [{
                        "name": "kube-proxy",
                        "image": format!("registry.k8s.io/kube-proxy:v{version}"),
                        "imagePullPolicy": "Never",
                        "command": [
                            format!("{PROGRAMS}/kube-proxy"),
                            "--config=/var/lib/kube-proxy/config.conf",
                            "--hostname-override=$(NODE_NAME)",
                        ],
                        "env": [
                            { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                            { "name": "PATH", "value": "/usr/sbin:/usr/bin" },
                        ],
                        "securityContext": { "privileged": true },
                        "volumeMounts": mounts,
                    }],
                    "volumes": volumes,
                },
            },
        },
    })
}
