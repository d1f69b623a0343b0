//! Whether the machine is well: the gate's decision, and the report that `status` and `health` read.

pub(crate) mod gate;
pub mod report;
