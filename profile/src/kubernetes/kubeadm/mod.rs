//! Upstream Kubernetes, set up by kubeadm: one node that is control plane and worker.
//!
//! Every program that runs comes from the verified root. kubeadm writes static pods as it always does,
//! under the names of its own images; behind all of these names is one small image (imported from the
//! root), and each pod gets its program by a read-only mount of a single file. Nothing is pulled.
//!
//! ```text
//! first boot     containerd → import → keys → kubeadm init → addons
//! later boots    containerd → import → kubelet
//! new image or   containerd → import → certificates, manifests, kubelet's configuration anew
//! new settings       → kubelet → what is kept in the cluster anew → addons
//! ```
//!
//! What was done is remembered in `/etc/kubernetes/sternpost/`, beside the certificates that it is
//! about: whatever goes back to an earlier state of `/etc/kubernetes` (nothing does yet) goes back
//! with it.
//!
//! # A cluster is made once
//!
//! etcd's database is all that a site cannot make again, so one rule stands above all others here: *nothing is ever
//! cleared where there is a database*, but for all of `state` together (`bootctl/src/state/erase.rs`). etcd makes the
//! folder `member` before it answers anybody, so without it the API server has never answered and nobody can have kept
//! anything in the cluster.
//!
//! | state | `sternpost/begun` | `sternpost/cluster` | `pki/ca.key` | `etcd/member` | what a start does |
//! | --- | --- | --- | --- | --- | --- |
//! | nothing | – | – | – | – | notes `begun`, makes the keys, puts them on the disk, `kubeadm init` |
//! | begun | there | – | any | – | `kubeadm reset` if there is `pki` (its keys may be half written), then as above |
//! | begun, ran | there | – | there | there | `kubeadm init` again, over what is there |
//! | made | – | any | any | any | nothing if `cluster` is the key in force, else brought forward to it |
//!
//! - `begun` is written, and synced, only where there is nothing at all. What has no `begun` and is not nothing counts
//!   as made: a machine that lost its `cluster`, or one from before there was a `begun`, keeps its data. It is brought
//!   forward as if its settings had changed: certificates, manifests and the kubelet's configuration are written anew.
//! - `kubeadm reset` by hand leaves an empty `pki`: with the note `cluster` removed as well, that is "nothing" again.
//! - Kubeconfigs are made from the keys whenever a cluster is begun: one that a cut left empty would stop kubeadm for ever.
//! - The keys are on the disk before etcd can run, so that no cut leaves a database whose keys are lost: there is no row
//!   with `begun` and `member` and without `ca.key`.
//! - `kubeadm init` may be run again over what it left (preflight is skipped; each of its phases takes what is there or
//!   writes the same again). So a cut after the API server answered, at the very end even, costs nothing: the start after
//!   it finds a database and clears nothing. Settings that change before init has ended once may contradict the
//!   certificates that are there; then kubeadm says so and `kubeadm reset`, by hand, starts again.
//! - When init has ended well `begun` goes, then `cluster` comes. A cut between the two leaves a cluster without its
//!   stamp, which is adopted.
//! - Only "there is nothing" (ENOENT) counts as missing. Any other error ends the step that looked.
//!
//! Sources: kubeadm v1beta4 (k8s.io/kubernetes cmd/kubeadm/app/apis/kubeadm/v1beta4), kubeadm's own
//! addons (cmd/kubeadm/app/phases/addons), containerd 2 configuration version 3, CNI 1.0.

mod addons;
mod check;
mod config;
mod steps;

use super::{Access, Class, Cluster, Context, Distribution, Identity, Role, Skew, StatePath};
use crate::diagnostics::Problem;
use crate::render::proxy_for_unit;
use crate::schema::Network;
use crate::{Contribution, EffectiveFacts, KubernetesFacts};

/// The distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kubeadm;

const NAME: &str = "kubeadm";

impl Distribution for Kubeadm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, cluster: &Cluster, network: &Network) -> Vec<Problem> {
        check::problems(cluster, network)
    }

    fn identity(&self, cluster: &Cluster, node: &str) -> Identity {
        Identity {
            distribution: NAME.into(),
            node: node.into(),
            pods: cluster.pods.clone(),
            services: cluster.services.clone(),
            domain: cluster.names.domain.clone(),
        }
    }

    fn access(&self, role: Role) -> Access {
        match role {
            Role::Init => Access {
                kubeconfig: steps::ADMIN,
                admin: true,
            },
        }
    }

    fn state(&self) -> &'static [StatePath] {
        const fn path(path: &'static str, class: Class) -> StatePath {
            StatePath { path, class }
        }
        const {
            &[
                path("/etc/kubernetes", Class::Restore),
                path("/var/lib/etcd", Class::Restore),
                // The kubelet's certificate is in it, and images that a site without a network gets only once.
                path("/var/lib/kubelet", Class::Keep),
                path("/var/lib/containerd", Class::Keep),
            ]
        }
    }

    /// etcd and kubeadm go up one minor version at a time, and not down.
    fn change(&self, from: &KubernetesFacts, to: EffectiveFacts<'_>) -> Result<(), Skew> {
        let skew = |wanted: String| {
            let named =
                |facts: &KubernetesFacts| format!("{} {}", facts.distribution, facts.version);
            Err(Skew {
                from: named(from),
                to: to.kubernetes().map_or("none".into(), named),
                wanted,
            })
        };
        let same = || format!("an image with {} {}", from.distribution, from.version);
        let Some(to) = to
            .kubernetes()
            .filter(|to| to.distribution == from.distribution)
        else {
            return skew(same());
        };
        match (minor(&from.version), minor(&to.version)) {
            (Some((major, was)), Some(is)) if is == (major, was) => Ok(()),
            (Some((major, was)), Some(is)) if Some(is.1) == was.checked_add(1) && is.0 == major => {
                Ok(())
            }
            (Some((major, was)), Some(is)) if is > (major, was) => skew(format!(
                "an image with {NAME} {major}.{} first",
                was.saturating_add(1)
            )),
            _ => skew(same()),
        }
    }

    fn render(&self, cluster: &Cluster, context: &Context<'_>) -> Contribution {
        let version = context
            .facts
            .kubernetes()
            .map_or("", |k| k.version.as_str());
        let plan = config::Plan::new(
            cluster,
            version.trim_start_matches('v'),
            context.hostname,
            context.facts.architecture(),
        );
        let mut files = plan.files();
        let key = plan.key(&files);
        let units = ["containerd.service", "kubelet.service"];
        files.extend(
            units
                .iter()
                .filter_map(|unit| proxy_for_unit(context.profile, unit)),
        );
        Contribution {
            lanes: steps::lanes(cluster, &key),
            units: units.map(str::to_owned).into(),
            checks: steps::checks(context),
            files,
        }
    }
}

/// Major and minor of a version, with or without a leading `v`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageFacts;

    fn image(kubernetes: Option<(&str, &str)>) -> ImageFacts {
        serde_json::from_value(serde_json::json!({
            "product": "demo", "version": "2.0", "architecture": "x86_64", "security_version": 1, "state_epoch": 1,
            "build_time": 0,
            "kubernetes": kubernetes.map(|(name, version)| serde_json::json!({"distribution": name, "version": version})),
        }))
        .unwrap()
    }

    #[test]
    fn kubernetes_goes_up_one_minor_at_a_time_and_not_down() {
        let from = |version: &str| KubernetesFacts {
            distribution: "kubeadm".into(),
            version: version.into(),
        };
        let change = |was: &str, is: &str| {
            Kubeadm.change(
                &from(was),
                EffectiveFacts::new(&image(Some(("kubeadm", is)))),
            )
        };
        for (was, is) in [
            ("1.36.3", "v1.36.3"),
            ("1.36.3", "1.36.1"),
            ("1.36.9", "1.37.0"),
        ] {
            assert_eq!(change(was, is), Ok(()), "{was} to {is}");
        }
        let skew = change("1.36.3", "1.38.0").unwrap_err().to_string();
        assert!(
            skew.ends_with("install an image with kubeadm 1.37 first"),
            "{skew}"
        );
        for (was, is) in [
            ("1.37.0", "1.36.3"),
            ("1.36.3", "2.37.0"),
            ("1.36.3", "?"),
            ("?", "1.36.3"),
        ] {
            assert!(change(was, is).is_err(), "{was} to {is}");
        }
        for other in [None, Some(("k3s", "1.36.3"))] {
            let skew = Kubeadm
                .change(&from("1.36.3"), EffectiveFacts::new(&image(other)))
                .unwrap_err();
            assert_eq!(skew.wanted, "an image with kubeadm 1.36.3");
        }
    }

    /// The recipe keeps per epoch what has to go back with a slot.
    #[test]
    fn what_goes_back_is_per_epoch_in_the_recipe() {
        let path = concat!(
            env!("STERNPOST_SOURCE"),
            "/recipes/kubernetes/kubeadm-1.36.toml"
        );
        let recipe = std::fs::read_to_string(path).unwrap();
        let restored: Vec<_> = Kubeadm
            .state()
            .iter()
            .filter(|it| it.class == Class::Restore)
            .collect();
        for it in &restored {
            let entry = format!("[[persist]]\npath = \"{}\"\nper_epoch = true\n", it.path);
            assert!(recipe.contains(&entry), "{entry}");
        }
        assert_eq!(recipe.matches("per_epoch = true").count(), restored.len());
    }
}
