//! What the service keeps on `state` about `state` itself: whose it is, and whether the last run ended cleanly.

pub mod owner;
pub(crate) mod shutdown_marker;
