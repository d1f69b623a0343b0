//! Whose the content of `state` is: the file `owner.json` on it.
//!
//! Written by a version that was marked good, never by one on trial. A version that is older by its state epoch, and
//! comes up on what a newer one has used, starts the host and its management but not Kubernetes: it could not read what
//! the newer one left, or would make it unreadable.

use std::path::PathBuf;

use boot_core::Digest;
use profile::ImageFacts;
use serde::{Deserialize, Serialize};

use crate::failure::{Doing, Failure, Result};
use crate::machine::Machine;
use crate::os::files::write_durable;
use crate::os::paths::Paths;

/// Version of the file.
const FORMAT: u32 = 1;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    format: u32,
    /// State epoch of the image.
    state_epoch: u64,
    /// Its version, for people.
    version: String,
    /// Its manifest, if known.
    manifest: Option<Digest>,
    /// Its Kubernetes distribution with version.
    kubernetes: Option<String>,
}

/// What every format of the file has, and all that is read of a later one.
#[derive(Deserialize)]
struct Any {
    format: u32,
    #[serde(default)]
    version: Option<String>,
}

/// Where it lies.
#[must_use]
pub fn path(paths: &Paths) -> PathBuf {
    paths.state("owner.json")
}

/// Why what is on `state` is not for this image, if so. Nobody's is everybody's.
#[must_use]
pub fn of_another(paths: &Paths, image: &ImageFacts) -> Option<String> {
    let path = path(paths);
    let bytes = match small_file::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => return Some(unreadable(&path, &e)),
    };
    let any: Any = match serde_json::from_slice(&bytes) {
        Ok(any) => any,
        Err(e) => return Some(unreadable(&path, &e)),
    };
    if any.format > FORMAT {
        return Some(format!(
            "what is on state was left by a newer version{} (format {}; this one reads {FORMAT})",
            any.version.map_or_else(String::new, |it| format!(", {it}")),
            any.format,
        ));
    }
    match serde_json::from_slice::<Owner>(&bytes) {
        Err(e) => Some(unreadable(&path, &e)),
        Ok(owner) if owner.state_epoch > image.state_epoch => Some(format!(
            "what is on state was left by version {} (state epoch {}; version {} has {})",
            owner.version, owner.state_epoch, image.version, image.state_epoch
        )),
        Ok(_) => None,
    }
}

/// Why nothing may be brought up on what /state holds, if so: it is in memory, or a newer version's.
#[must_use]
pub fn unfit(machine: &Machine) -> Option<String> {
    machine.boot.state_missing().or_else(|| {
        // Recovery brings nothing up, whosever it is.
        machine.slot()?;
        of_another(&machine.paths(), machine.image.as_ref()?)
    })
}

/// Nothing is known then, which is not the same as nobody's.
fn unreadable(path: &std::path::Path, error: &dyn std::fmt::Display) -> String {
    format!(
        "whose the content of state is cannot be read: {}: {error}",
        path.display()
    )
}

/// Makes it this image's, which was marked good and may use it.
///
/// # Errors
/// It cannot be written, or is another's.
pub fn claim(paths: &Paths, image: &ImageFacts, manifest: Option<Digest>) -> Result<()> {
    if let Some(another) = of_another(paths, image) {
        return Err(Failure::refused(another));
    }
    let path = path(paths);
    let owner = Owner {
        format: FORMAT,
        state_epoch: image.state_epoch,
        version: image.version.clone(),
        manifest,
        kubernetes: image
            .kubernetes
            .as_ref()
            .map(|it| format!("{} {}", it.distribution, it.version)),
    };
    let mut bytes = serde_json::to_vec_pretty(&owner).map_err(Failure::of)?;
    bytes.push(b'\n');
    if small_file::read(&path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    write_durable(&path, &bytes, 0o644).doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(version: &str, state_epoch: u64) -> ImageFacts {
        ImageFacts {
            product: "demo".into(),
            version: version.into(),
            architecture: "x86_64".into(),
            security_version: 1,
            state_epoch,
            build_time: 0,
            kubernetes: None,
            vm: vec![],
            kernel: String::new(),
        }
    }

    #[test]
    fn a_newer_epoch_is_not_for_an_older_image() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let (old, new) = (image("1.0", 1), image("2.0", 2));
        assert_eq!(of_another(&paths, &old), None);
        claim(&paths, &old, None).unwrap();
        assert_eq!(of_another(&paths, &new), None);
        claim(&paths, &new, Some(Digest([2; 32]))).unwrap();
        assert_eq!(of_another(&paths, &new), None);
        let why = of_another(&paths, &old).unwrap();
        assert!(why.contains("version 2.0 (state epoch 2"), "{why}");
        let before = std::fs::read(path(&paths)).unwrap();
        claim(&paths, &old, None).unwrap_err();
        assert_eq!(std::fs::read(path(&paths)).unwrap(), before);
    }

    #[test]
    fn a_later_format_and_what_cannot_be_read_are_nobodys_guess() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let image = image("1.0", 9);
        for (text, says) in [
            (r#"{"format": 2, "owners": []}"#, "newer version (format 2"),
            (
                r#"{"format": 7, "version": "9.1"}"#,
                "newer version, 9.1 (format 7",
            ),
            ("", "cannot be read"),
            ("\0\0\0", "cannot be read"),
            (r#"{"format": 1}"#, "cannot be read"),
        ] {
            std::fs::create_dir_all(path(&paths).parent().unwrap()).unwrap();
            std::fs::write(path(&paths), text).unwrap();
            let why = of_another(&paths, &image).unwrap();
            assert!(why.contains(says), "{text}: {why}");
            claim(&paths, &image, None).unwrap_err();
        }
    }
}
