//! Whether the machine is well: what is looked at, and what the gate makes of it.

pub(crate) mod checks;
pub(crate) mod gate;
pub(crate) mod observe;
