//! What is known of this start beside the agent's report: what the image says it is, and which boot it is.

use std::fs;

use boot_core::slot::Target;
use profile::ImageFacts;

use crate::failure::Result;
use crate::os::files::read_json;
use crate::os::paths::Paths;

/// What the image says it is.
pub fn image_facts(paths: &Paths) -> Result<ImageFacts> {
    read_json(&paths.image("image.json"))
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// `a`, `b` or `recovery`, as it stands in every JSON of ours.
pub fn target_name(target: Target) -> &'static str {
    match target {
        Target::A => "a",
        Target::B => "b",
        Target::Recovery => "recovery",
    }
}
