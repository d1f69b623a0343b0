//! Kubernetes distributions: each a folder, each behind [`Distribution`].

pub mod kubeadm;
pub(crate) mod yaml;

use crate::{Contribution, ImageFacts};

/// What a distribution may use of what was decided already.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The whole profile.
    pub profile: &'a crate::Profile,
    /// The image.
    pub image: &'a ImageFacts,
    /// The machine.
    pub machine: &'a crate::MachineFacts,
    /// The final host name.
    pub hostname: &'a str,
}

/// A Kubernetes distribution, with its settings from the profile.
pub trait Distribution {
    /// Its name in profiles and in image.json.
    fn name(&self) -> &'static str;

    /// What is wrong with the settings beyond what the schema says: (path below `kubernetes`,
    /// message, help).
    fn validate(&self, profile: &crate::Profile) -> Vec<crate::schema::Problem>;

    /// Files, actions and checks.
    fn render(&self, context: &Context<'_>) -> Contribution;
}
