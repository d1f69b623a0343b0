//! Whether the machine is well: what is looked at, what the gate makes of it, and what was not well before.

pub(crate) mod baseline;
pub(crate) mod checks;
pub(crate) mod gate;
pub(crate) mod observe;
