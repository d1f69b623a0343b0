//! No VM runtime.

use super::VmRuntime;
use crate::distribution::{Context, Contribution};

/// No VM runtime: machines that run containers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct None;

impl VmRuntime for None {
    fn name(&self) -> &'static str {
        "none"
    }

    fn validate(&self, _profile: &crate::Profile) -> Vec<crate::schema::Problem> {
        Vec::new()
    }

    fn render(&self, _context: &Context<'_>) -> Contribution {
        Contribution::default()
    }
}
