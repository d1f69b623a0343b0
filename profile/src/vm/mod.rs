//! VM runtimes: each behind [`VmRuntime`].

mod none;

pub use none::NoVms;

use crate::Contribution;
use crate::kubernetes::Context;

/// A VM runtime. Like a distribution it has no state and no settings of its own.
pub trait VmRuntime: Sync {
    /// Its name in profiles and in image.json.
    fn name(&self) -> &'static str;

    /// What is wrong with what a profile asks of it, beyond what the schema says.
    fn check(&self, profile: &crate::Profile) -> Vec<crate::diagnostics::Problem>;

    /// Files, lanes and checks.
    fn render(&self, context: &Context<'_>) -> Contribution;
}
