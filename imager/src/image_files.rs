//! The files of ours in every image: who it is, whom it trusts, the boot controller and its units.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use boot_core::trust::Trust;
use serde::Serialize;

use crate::arch::Architecture;
use crate::programs::Programs;
use crate::recipe::Recipe;
use crate::root::{Content, ImageFile};

/// `/usr/lib/sternpost/image.json`: what the running system knows of its image.
#[derive(Debug, Serialize)]
pub struct ImageFacts<'a> {
    /// The product.
    pub product: &'a str,
    /// The version.
    pub version: &'a str,
    /// The architecture.
    pub architecture: Architecture,
    /// The security version.
    pub security_version: u64,
    /// The epoch of what is kept per version.
    pub state_epoch: u64,
    /// Seconds since 1970.
    pub build_time: u64,
    /// Kubernetes, if it is in the image.
    pub kubernetes: Option<KubernetesFacts<'a>>,
    /// VM runtimes in the image.
    pub vm: Vec<&'a str>,
    /// `uname -r`.
    pub kernel: &'a str,
}

/// Kubernetes in the image.
#[derive(Debug, Serialize)]
pub struct KubernetesFacts<'a> {
    /// Its distribution.
    pub distribution: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// What one build adds to a recipe.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The version of the image.
    pub version: String,
    /// The security version of the image.
    pub security_version: u64,
    /// The architecture.
    pub architecture: Architecture,
    /// Seconds since 1970.
    pub epoch: u64,
}

/// Everything of ours for one root.
///
/// # Errors
/// The profile or a unit cannot be read.
pub fn image_files(
    recipe: &Recipe,
    identity: &Identity,
    kernel: &str,
    trust: &Trust,
    profile: Option<&Path>,
    programs: &Programs,
) -> Result<Vec<ImageFile>> {
    let vm = if recipe.vm.is_empty() {
        vec!["none"]
    } else {
        recipe.vm.iter().map(String::as_str).collect()
    };
    let facts = ImageFacts {
        product: &recipe.product,
        version: &identity.version,
        architecture: identity.architecture,
        security_version: identity.security_version,
        state_epoch: recipe.state_epoch,
        build_time: identity.epoch,
        kubernetes: recipe
            .kubernetes
            .as_ref()
            .map(|kubernetes| KubernetesFacts {
                distribution: &kubernetes.distribution,
                version: &kubernetes.version,
            }),
        vm,
        kernel,
    };
    let mut facts = serde_json::to_vec_pretty(&facts).context("encoding image.json")?;
    facts.push(b'\n');
    let mut files = vec![
        bytes("/usr/lib/sternpost/image.json", facts),
        bytes("/usr/lib/sternpost/trust.json", trust.to_json()),
        ImageFile {
            path: "/usr/bin/bootctl".to_owned(),
            content: Content::File(programs.bootctl.clone(), 0o755),
        },
    ];
    if let Some(profile) = profile {
        let text = fs::read(profile)
            .with_context(|| format!("reading the profile {}", profile.display()))?;
        files.push(bytes("/usr/lib/sternpost/profile.yaml", text));
    }
    files.extend(unit_files(&programs.units)?);
    Ok(files)
}

fn bytes(path: &str, content: Vec<u8>) -> ImageFile {
    ImageFile {
        path: path.to_owned(),
        content: Content::Bytes(content, 0o644),
    }
}

/// bootctl's units, each enabled as its `[Install]` section asks.
fn unit_files(directory: &Path) -> Result<Vec<ImageFile>> {
    let what = || format!("reading bootctl's units in {}", directory.display());
    let mut names: Vec<_> = fs::read_dir(directory)
        .with_context(what)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()
        .with_context(what)?;
    names.sort();
    let mut files = Vec::new();
    for path in names.iter().filter(|path| path.is_file()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(path).with_context(what)?;
        for (key, suffix) in [("WantedBy=", "wants"), ("RequiredBy=", "requires")] {
            let targets = text.lines().filter_map(|line| line.strip_prefix(key));
            for target in targets.flat_map(str::split_whitespace) {
                files.push(ImageFile {
                    path: format!("/usr/lib/systemd/system/{target}.{suffix}/{name}"),
                    content: Content::Symlink(format!("../{name}")),
                });
            }
        }
        files.push(bytes(
            &format!("/usr/lib/systemd/system/{name}"),
            text.into_bytes(),
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_enabled_as_they_ask() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("a.service"),
            "[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target sysinit.target\n",
        )
        .unwrap();
        fs::write(dir.path().join("b.service"), "[Service]\n").unwrap();
        let paths: Vec<_> = unit_files(dir.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(
            paths,
            [
                "/usr/lib/systemd/system/multi-user.target.wants/a.service",
                "/usr/lib/systemd/system/sysinit.target.wants/a.service",
                "/usr/lib/systemd/system/a.service",
                "/usr/lib/systemd/system/b.service",
            ]
        );
    }
}
