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

/// The least that stands in for a machine, in tests.
#[cfg(test)]
pub(crate) mod stand_in {
    use super::Paths;

    pub(crate) fn put(path: &std::path::Path, text: &str) {
        crate::os::files::write_atomic(path, text.as_bytes(), 0o644).unwrap();
    }

    pub(crate) fn image(paths: &Paths) {
        image_with(paths, "null");
    }

    pub(crate) fn image_with_kubernetes(paths: &Paths) {
        image_with(paths, r#"{"distribution":"kubeadm","version":"1.36.3"}"#);
    }

    fn image_with(paths: &Paths, kubernetes: &str) {
        let facts = format!(
            r#"{{"product":"demo","version":"1.0","architecture":"x86_64","security_version":1,
                "state_epoch":1,"build_time":1790000000,"kubernetes":{kubernetes},"vm":["none"],"kernel":"6.12"}}"#
        );
        put(&paths.image("image.json"), &facts);
        put(
            &paths.at("/etc/machine-id"),
            "0123456789abcdef0123456789abcdef\n",
        );
    }
}
