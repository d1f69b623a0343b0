//! The profile: what a machine is to be.
//!
//! A profile is a YAML file (`/state/sternpost/profile.yaml`, or the image's own). This crate reads
//! it, says everything that is wrong with it at once, and renders it into files, steps and health
//! checks. It does no I/O: bytes in, values out.
//!
//! # Example
//!
//! ```
//! use profile::{ImageFacts, MachineFacts};
//!
//! let text = "version: 1\nhostname: edge-{machine-id:8}\n";
//! let profile = profile::parse(text, "profile.yaml").expect("a valid profile");
//!
//! let image: ImageFacts = serde_json::from_str(
//!     r#"{"product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
//!         "state_epoch": 1, "build_time": 0, "kubernetes": null, "vm": ["none"], "kernel": "6.12"}"#,
//! )?;
//! let machine = MachineFacts {
//!     machine_id: "0123456789abcdef0123456789abcdef".into(),
//!     boot_id: "7f3c0f9e-0000-4000-8000-000000000000".into(),
//! };
//! let rendered = profile::render(&profile, &image, &machine).expect("this image suffices");
//! assert_eq!(rendered.hostname, "edge-01234567");
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # Reading
//!
//! [`parse`] works in three steps: a tree in which every value knows its place in the file, a check
//! of that tree against the JSON Schema of [`Profile`] that collects everything that is wrong, and
//! deserialization. [`parse_for`] adds what depends on the image. The same schema is published in
//! docs/schemas/profile.schema.json, so an editor and the machine refuse the same things. Recovery, which may be older
//! than a profile, reads it [leniently](Reading::Lenient), in the same way.
//!
//! # Rendering
//!
//! [`render`] is a pure function. A Kubernetes distribution is a folder in `kubernetes` behind the
//! trait [`kubernetes::Distribution`], a VM runtime one in `vm` behind [`vm::VmRuntime`]; beside them
//! only `schema` knows their names, where a profile writes them. Each gives a [`Contribution`].
//!
//! # Errors
//!
//! [`Diagnostics`] for a profile that is wrong: file, line, column, the line itself, what was meant. What can never work
//! is an error; what could be meant is a warning, which [`check`] gives beside the profile.
//! [`RenderError`] for a right profile on the wrong image.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

// Checkouts share cargo's target directory, and cargo compares times of files: by this, which is another path in each,
// it sees that what is there was built from another checkout's sources.
const _: Option<&str> = option_env!("STERNPOST_SOURCE");

pub mod contribution;
pub mod diagnostics;
mod facts;
pub mod kubernetes;
mod render;
mod scalar;
pub mod schema;
pub mod vm;

pub use contribution::{
    Blame, Check, Condition, Contribution, File, Lane, Probe, Question, Stamp, Step, When, Work,
};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use facts::{EffectiveFacts, ImageFacts, KubernetesFacts, MachineFacts};
pub use render::{HealthPlan, PROXY_SETTINGS, RenderError, Rendered, SITE_AUTHORITIES, render};
pub use schema::{Profile, Reading, json_schema};

/// Reads a profile. `file` is the name used in messages.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn parse(text: &str, file: &str) -> Result<Profile, Diagnostics> {
    check(text, file, Reading::Strict).map(|(profile, _)| profile)
}

/// Reads a profile, and says what is hardly meant in one that can be used: the second value has warnings alone, and, where
/// it is read leniently, as errors what was left out.
///
/// # Errors
/// Everything that is wrong with it and everything that is hardly meant, each with line and column.
pub fn check(
    text: &str,
    file: &str,
    reading: Reading<'_>,
) -> Result<(Profile, Diagnostics), Diagnostics> {
    schema::read(text, file, reading)
}

/// The text of a profile, to be shown: each byte of what the schema says is secret is overwritten. None for a text that is
/// not YAML.
#[must_use]
pub fn without_secrets(text: &str) -> Option<String> {
    schema::without_secrets(text)
}

/// Reads a profile for one image: like [`parse`], and refuses what the image cannot be, naming both
/// what the profile asks for and what the image has.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn parse_for(text: &str, file: &str, image: &ImageFacts) -> Result<Profile, Diagnostics> {
    check(text, file, Reading::For(image)).map(|(profile, _)| profile)
}
