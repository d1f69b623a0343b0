//! What the machine of the story is there for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::telling::{said, show, step};
use crate::machine::Machine;
use crate::scenario::Architecture;

pub(super) const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";
const DIARY: &str = "/var/lib/demo/diary";

/// How long Kubernetes may take on a slow host; more is a failure.
const KUBERNETES_LIMIT: Duration = Duration::from_secs(25 * 60);

/// What the machine is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Workload {
    /// A pod that writes to a volume.
    Deployment,
    /// A file below /var.
    Service,
}

impl Workload {
    pub(super) fn of_recipe(recipe: &str) -> Workload {
        if recipe.starts_with("kubeadm") {
            Self::Deployment
        } else {
            Self::Service
        }
    }

    pub(super) fn memory(self) -> u32 {
        match self {
            Self::Deployment => 4096,
            Self::Service => 1024,
        }
    }

    pub(super) fn limit(self) -> Duration {
        match self {
            Self::Deployment => KUBERNETES_LIMIT,
            Self::Service => Duration::from_secs(6 * 60),
        }
    }

    pub(super) fn well(self) -> &'static str {
        match self {
            Self::Deployment => "loader to node Ready",
            Self::Service => "loader to healthy",
        }
    }

    pub(super) fn show(self, machine: &mut Machine<'_>) -> Result<()> {
        match self {
            Self::Deployment => show(machine, &format!("{KUBECTL} get nodes,pods -A")),
            Self::Service => show(machine, "bootctl health"),
        }
    }

    /// Starts it; gives the first line that it wrote.
    pub(super) fn start(
        self,
        machine: &mut Machine<'_>,
        architecture: Architecture,
    ) -> Result<String> {
        step("a workload writes to a volume", || {
            match self {
                Self::Deployment => {
                    machine.run(&format!(
                        "{KUBECTL} apply -f - <<'END'\n{}\nEND",
                        diary(architecture)
                    ))?;
                    machine.run_within(
                        &format!("{KUBECTL} rollout status deployment/diary --timeout=10m"),
                        KUBERNETES_LIMIT,
                    )?;
                }
                Self::Service => {
                    machine.run(&format!(
                        "mkdir -p /var/lib/demo && date -u +%FT%TZ >> {DIARY} && sync"
                    ))?;
                }
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                let line = machine
                    .run(&format!("head -n 1 {DIARY} || true"))?
                    .trim()
                    .to_owned();
                if !line.is_empty() {
                    return Ok(line);
                }
                if Instant::now() >= deadline {
                    bail!("the workload writes nothing to {DIARY}");
                }
                std::thread::sleep(Duration::from_secs(2));
            }
        })
    }

    /// It is still there, with what it wrote first, and goes on.
    pub(super) fn check(self, machine: &mut Machine<'_>, wrote: &str) -> Result<()> {
        step("the workload and its data are still there", || {
            if self == Self::Deployment {
                machine.run_within(
                    &format!("{KUBECTL} rollout status deployment/diary --timeout=10m"),
                    KUBERNETES_LIMIT,
                )?;
            }
            let first = machine.run(&format!("head -n 1 {DIARY}"))?;
            if first.trim() != wrote {
                bail!(
                    "the first line of the diary is {:?}, it was {wrote:?}",
                    first.trim()
                );
            }
            Ok(())
        })?;
        let lines = machine.run(&format!("wc -l < {DIARY}"))?;
        said(&format!("{} entries since {wrote}", lines.trim()));
        Ok(())
    }
}

/// A pod that writes the time to a volume. No registry is needed: its program is the root's own shell.
fn diary(architecture: Architecture) -> String {
    let mut folders = vec![("usr", "/usr", "/usr"), ("lib", "/usr/lib", "/lib")];
    if architecture == Architecture::X86_64 {
        folders.push(("lib64", "/usr/lib64", "/lib64"));
    }
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for (name, host, inside) in folders {
        mounts.push_str(&format!(
            "        - {{name: {name}, mountPath: {inside}, readOnly: true}}\n"
        ));
        volumes.push_str(&format!(
            "      - {{name: {name}, hostPath: {{path: {host}}}}}\n"
        ));
    }
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: diary}}
spec:
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  hostPath: {{path: /var/lib/demo, type: DirectoryOrCreate}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: diary}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  volumeName: diary
  resources: {{requests: {{storage: 1Mi}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: diary}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{app: diary}}}}
  template:
    metadata: {{labels: {{app: diary}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: diary
        image: registry.k8s.io/pause:3.10.2
        imagePullPolicy: Never
        command: [/usr/bin/sh, -c, 'while :; do date -u +%FT%TZ >> /data/diary; sync /data/diary; sleep 5; done']
        volumeMounts:
        - {{name: data, mountPath: /data}}
{mounts}      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: diary}}}}
{volumes}"
    )
}
