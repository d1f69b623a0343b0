//! No VM runtime.

use super::VmRuntime;
use crate::Contribution;
use crate::kubernetes::Context;

/// No VM runtime: machines that run containers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoVms;

impl VmRuntime for NoVms {
    fn name(&self) -> &'static str {
        "none"
    }

    fn check(&self, _profile: &crate::Profile) -> Vec<crate::diagnostics::Problem> {
        Vec::new()
    }

    fn render(&self, _context: &Context<'_>) -> Contribution {
        Contribution::default()
    }
}
