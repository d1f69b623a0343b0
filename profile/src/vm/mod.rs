//! VM runtimes: each behind [`VmRuntime`].

mod none;

pub use none::NoVms;

use crate::Contribution;
use crate::kubernetes::Context;

/// A VM runtime, with its settings from the profile.
pub trait VmRuntime {
    /// Its name in profiles and in image.json.
    fn name(&self) -> &'static str;

    /// What is wrong with the settings beyond what the schema says.
    fn validate(&self, profile: &crate::Profile) -> Vec<crate::schema::Problem>;

    /// Files, actions and checks.
    fn render(&self, context: &Context<'_>) -> Contribution;
}
