//! Kubernetes distributions: each a folder, each behind [`Distribution`].
//!
//! A distribution has no state and no settings of its own: what it is to do comes as a [`Cluster`], and what it wants
//! done goes out as a [`Contribution`]. They are listed twice: in [`ALL`], and as profiles write them in
//! [`crate::schema::Kubernetes`]. A test holds both lists together.

mod cluster;
pub mod kubeadm;
pub(crate) mod yaml;

pub use cluster::{
    Access, Class, Cluster, Cni, Datastore, Encryption, Endpoint, Identity, Names, NodeSettings,
    Overlap, Part, Role, SecretRef, Settings, Skew, StatePath,
};

use crate::diagnostics::Problem;
use crate::schema::Network;
use crate::{Contribution, EffectiveFacts, KubernetesFacts};

/// All distributions.
pub const ALL: [&dyn Distribution; 1] = [&kubeadm::Kubeadm];

/// What was decided already, for those who render.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The whole profile.
    pub profile: &'a crate::Profile,
    /// What the machine has.
    pub facts: EffectiveFacts<'a>,
    /// The machine.
    pub machine: &'a crate::MachineFacts,
    /// The final host name.
    pub hostname: &'a str,
}

/// A Kubernetes distribution.
///
/// What a machine does follows from [`check`](Self::check) and [`render`](Self::render). Of the others, [`identity`],
/// [`access`], [`state`] and [`change`], nothing is in force: only tests call them, so a cluster whose networks change is
/// not refused by them, and no path is restored.
///
/// [`identity`]: Self::identity
/// [`access`]: Self::access
/// [`state`]: Self::state
/// [`change`]: Self::change
pub trait Distribution: Sync {
    /// Its name in profiles and in image.json.
    fn name(&self) -> &'static str;

    /// What is wrong with a cluster, on a machine with this network, beyond what the schema says.
    fn check(&self, cluster: &Cluster, network: &Network) -> Vec<Problem>;

    /// What may not change once the cluster exists.
    fn identity(&self, cluster: &Cluster, node: &str) -> Identity;

    /// How this machine reaches the cluster.
    fn access(&self, role: Role) -> Access;

    /// What it keeps on `state`.
    fn state(&self) -> &'static [StatePath];

    /// Whether what `from` left on `state` may be used by `to`.
    ///
    /// # Errors
    /// If not, with the version that may.
    fn change(&self, from: &KubernetesFacts, to: EffectiveFacts<'_>) -> Result<(), Skew>;

    /// Files, lanes and checks.
    fn render(&self, cluster: &Cluster, context: &Context<'_>) -> Contribution;
}
