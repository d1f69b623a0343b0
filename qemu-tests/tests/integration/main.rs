//! What the pages promise about the tests.

#![allow(clippy::unwrap_used)]

mod promises;
