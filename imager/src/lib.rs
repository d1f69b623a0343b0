//! Recipe to signed image and bundle.
//!
//! ```text
//! recipe ── what an image contains          release ── keys, and who signs
//!    │
//!    ├─ debian, sources ── packages and artefacts, pinned
//!    ├─ root ── one file tree of them, packed
//!    ├─ boot ── loader and UKIs             build ── all of that, in its order
//!    └─ output ── partitions, disk, bundle
//!
//! commands ── the command line              workshop ── cache, tools tree, progress
//! inspect ── looks into what was made       run ── boots it
//! ```

pub mod arch;
pub mod boot;
pub mod build;
pub mod commands;
pub mod debian;
pub mod inspect;
pub mod output;
pub mod recipe;
pub mod release;
pub mod root;
pub mod run;
pub mod sources;
pub mod workshop;
