//! What kubeadm, containerd and the CNI plugins read.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Cluster, addons};
use crate::contribution::{HEADER, file};
use crate::kubernetes::Cni;
use crate::schema::Cidr;
use crate::{File, When};

pub(super) const CONFIG: &str = "/etc/sternpost/kubernetes/kubeadm.yaml";
pub(super) const PATCHES: &str = "/etc/sternpost/kubernetes/patches";
pub(super) const ADDONS: &str = "/etc/sternpost/kubernetes/addons.yaml";
pub(super) const SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// Where the control plane's programs are in the image.
pub(super) const PROGRAMS: &str = "/usr/lib/sternpost/kubernetes/bin";
/// The image that stands in for all, as the pause container of every pod. Its name goes with the
/// Kubernetes version (kubeadm's constants.PauseVersion).
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// Slow machines are the rule: a start that takes long is no failure, the health gate has the last
/// word.
const PATIENCE: &str = "10m0s";
/// Ten years for certificates, thirty for authorities: an appliance that was off for a year still
/// comes up. They are renewed whenever Kubernetes changes its version.
const CERTIFICATES: &str = "87600h0m0s";
const AUTHORITIES: &str = "262800h0m0s";

pub(super) struct Plan<'a> {
    cluster: &'a Cluster,
    version: &'a str,
    hostname: &'a str,
    architecture: &'a str,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        version: &'a str,
        hostname: &'a str,
        architecture: &'a str,
    ) -> Self {
        Self {
            cluster,
            version,
            hostname,
            architecture,
        }
    }

    pub(super) fn files(&self) -> Vec<File> {
        let mut files = vec![
            yaml(CONFIG, &[self.init(), self.cluster(), self.kubelet()]),
            yaml(&format!("{PATCHES}/etcd0+strategic.yaml"), &[etcd_patch()]),
            yaml(
                &format!("{PATCHES}/corednsdeployment0+strategic.yaml"),
                &[coredns_patch()],
            ),
            yaml(
                ADDONS,
                &addons::kube_proxy(self.cluster, self.version, self.architecture),
            ),
            file("/etc/containerd/config.toml", containerd(), When::BringUp),
            // Routes and rules that a network plugin made are not networkd's to remove.
            file(
                "/etc/systemd/networkd.conf.d/50-sternpost-kubernetes.conf",
                format!(
                    "{HEADER}[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n"
                ),
                When::Early,
            ),
        ];
        match self.cluster.settings.cni {
            Cni::Bridge => files.push(file(
                "/etc/cni/net.d/10-sternpost.conflist",
                format!("{:#}\n", self.bridge()),
                When::BringUp,
            )),
            Cni::None => {}
        }
        files
    }

    /// What tells one configuration of the cluster from another: the version, and a digest of
    /// everything that kubeadm and kubectl are given.
    pub(super) fn key(&self, files: &[File]) -> String {
        let mut hash = Sha256::new();
        for file in files
            .iter()
            .filter(|file| file.path.starts_with("/etc/sternpost/"))
        {
            hash.update(file.path.as_bytes());
            hash.update([0]);
            hash.update(&file.content);
        }
        let digest: String = hash
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("v{} {digest}\n", self.version)
    }

    fn init(&self) -> Value {
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            // kubeadm wants one; nobody is to join, so it is gone at once.
            "bootstrapTokens": [{ "ttl": "1m0s" }],
            "localAPIEndpoint": { "advertiseAddress": self.cluster.endpoint.address, "bindPort": 6443 },
            "nodeRegistration": {
                "name": self.hostname,
                "criSocket": SOCKET,
                "imagePullPolicy": "Never",
                "taints": [],
                "kubeletExtraArgs": [{ "name": "node-ip", "value": self.cluster.endpoint.address }],
            },
            "patches": { "directory": PATCHES },
            "skipPhases": ["preflight", "show-join-command"],
            "timeouts": {
                "controlPlaneComponentHealthCheck": PATIENCE,
                "etcdAPICall": PATIENCE,
                "kubeletHealthCheck": PATIENCE,
                "kubernetesAPICall": PATIENCE,
                "tlsBootstrap": PATIENCE,
                "upgradeManifests": PATIENCE,
            },
        })
    }

    fn cluster(&self) -> Value {
        let cluster = self.cluster;
        let mut names = vec![
            self.hostname.to_owned(),
            "localhost".into(),
            "127.0.0.1".into(),
        ];
        for name in cluster.endpoint.names.iter().map(ToString::to_string) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut api_server = self.component("kube-apiserver");
        api_server["certSANs"] = json!(names);
        json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": format!("v{}", self.version),
            "clusterName": cluster.names.cluster,
            "imageRepository": "registry.k8s.io",
            "networking": {
                "podSubnet": list(&cluster.pods),
                "serviceSubnet": list(&cluster.services),
                "dnsDomain": cluster.names.domain,
            },
            "encryptionAlgorithm": "ECDSA-P256",
            "certificateValidityPeriod": CERTIFICATES,
            "caCertificateValidityPeriod": AUTHORITIES,
            "apiServer": api_server,
            "controllerManager": self.component("kube-controller-manager"),
            "scheduler": self.component("kube-scheduler"),
            "etcd": { "local": { "dataDir": "/var/lib/etcd" } },
            // Ours, in addons.yaml: kubeadm has no patch for it.
            "proxy": { "disabled": true },
        })
    }

    fn component(&self, name: &str) -> Value {
        let mut component = json!({ "extraVolumes": [{
            "name": "program",
            "hostPath": format!("{PROGRAMS}/{name}"),
            "mountPath": format!("/usr/local/bin/{name}"),
            "pathType": "File",
            "readOnly": true,
        }] });
        if !self.cluster.settings.feature_gates.is_empty() {
            let gates: Vec<String> = self
                .cluster
                .settings
                .feature_gates
                .iter()
                .map(|(gate, on)| format!("{gate}={on}"))
                .collect();
            component["extraArgs"] = json!([{ "name": "feature-gates", "value": gates.join(",") }]);
        }
        component
    }

    fn kubelet(&self) -> Value {
        let mut kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "systemd",
            "containerRuntimeEndpoint": SOCKET,
            "maxPods": self.cluster.node.max_pods,
            "rotateCertificates": true,
        });
        if !self.cluster.settings.feature_gates.is_empty() {
            kubelet["featureGates"] = json!(self.cluster.settings.feature_gates);
        }
        kubelet
    }

    /// Leases of addresses lie where a reboot clears them: no pod outlives one.
    fn bridge(&self) -> Value {
        let any = |pods: &Cidr| {
            let any = if pods.address().is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            json!({ "dst": any })
        };
        let pods = &self.cluster.pods;
        json!({
            "cniVersion": "1.0.0",
            "name": "sternpost",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    "ipMasq": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": "/run/cni/networks",
                        "ranges": pods.iter().map(|pods| json!([{ "subnet": pods }])).collect::<Vec<_>>(),
                        "routes": pods.iter().map(any).collect::<Vec<_>>(),
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            ],
        })
    }
}

/// Networks, one a family, as Kubernetes' settings name them.
pub(super) fn list(networks: &[Cidr]) -> String {
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    networks.join(",")
}

/// The mount and the volume that bring one program of the root into a pod.
pub(super) fn program(name: &str) -> (Value, Value) {
    (
        json!({ "name": "program", "mountPath": format!("/usr/local/bin/{name}"), "readOnly": true }),
        json!({ "name": "program", "hostPath": { "path": format!("{PROGRAMS}/{name}"), "type": "File" } }),
    )
}

fn etcd_patch() -> Value {
    let (mount, volume) = program("etcd");
    json!({ "spec": {
        "containers": [{ "name": "etcd", "volumeMounts": [mount] }],
        "volumes": [volume],
    } })
}

fn coredns_patch() -> Value {
    let (mount, volume) = program("coredns");
    json!({ "spec": {
        "replicas": 1,
        "template": { "spec": {
            "containers": [{
                "name": "coredns",
                "imagePullPolicy": "Never",
                "command": ["/usr/local/bin/coredns"],
                "volumeMounts": [mount],
            }],
            "volumes": [volume],
        } },
    } })
}

fn containerd() -> String {
    format!(
        "{HEADER}version = 3
root = '/var/lib/containerd'
state = '/run/containerd'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '/etc/containerd/certs.d'

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '/etc/cni/net.d'
"
    )
}

/// Documents of YAML in one file. Written as JSON a line at a time would be YAML too, but people read
/// these when something is wrong.
fn yaml(path: &str, documents: &[Value]) -> File {
    let mut text = HEADER.to_owned();
    for (n, document) in documents.iter().enumerate() {
        if n > 0 {
            text.push_str("---\n");
        }
        text.push_str(&crate::kubernetes::yaml::to_string(document));
    }
    file(path, text, When::BringUp)
}
