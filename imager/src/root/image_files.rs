//! The files of ours in every image: who it is, whom it trusts, the boot controller and its units.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use boot_core::trust::Trust;
use profile::{Diagnostics, ImageFacts, KubernetesFacts, Reading};

use crate::arch::Architecture;
use crate::build::programs::Programs;
use crate::recipe::{Kind, Recipe};
use crate::root::{Content, ImageFile, console};

/// What one build adds to a recipe.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The version of the image.
    pub version: String,
    /// The security version of the image.
    pub security_version: u64,
    pub architecture: Architecture,
    /// Seconds since 1970.
    pub epoch: u64,
}

/// What the running system will know of its image (`/usr/lib/sternpost/image.json`).
#[must_use]
pub fn image_facts(recipe: &Recipe, identity: &Identity, kernel: &str) -> ImageFacts {
    let mut vm = vec!["none".to_owned()];
    vm.extend(recipe.vm.iter().filter(|name| *name != "none").cloned());
    ImageFacts {
        product: recipe.product.clone(),
        version: identity.version.clone(),
        architecture: identity.architecture.to_string(),
        security_version: identity.security_version,
        state_epoch: recipe.state_epoch,
        build_time: identity.epoch,
        kubernetes: recipe
            .kubernetes
            .as_ref()
            .map(|kubernetes| KubernetesFacts {
                distribution: kubernetes.distribution.clone(),
                version: kubernetes.version.clone(),
            }),
        vm,
        kernel: kernel.to_owned(),
    }
}

/// Reads a default profile and refuses one that a machine with this image would refuse. Beside its text comes what is
/// hardly meant in it.
///
/// # Errors
/// It cannot be read, or has mistakes; the error names all of them.
pub fn checked_profile(path: &Path, facts: &ImageFacts) -> Result<(Vec<u8>, Diagnostics)> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading the profile {}", path.display()))?;
    match profile::check(&text, &path.display().to_string(), Reading::For(facts)) {
        Ok((_, said)) => Ok((text.into_bytes(), said)),
        Err(diagnostics) => bail!(
            "the profile cannot be used:\n{}",
            diagnostics.to_text(false).trim_end()
        ),
    }
}

/// Everything of ours for one root.
pub fn image_files(
    recipe: &Recipe,
    identity: &Identity,
    kernel: &str,
    trust: &Trust,
    profile: Option<&Path>,
    programs: &Programs,
) -> Result<Vec<ImageFile>> {
    let known = image_facts(recipe, identity, kernel);
    let mut facts = serde_json::to_vec_pretty(&known).context("encoding image.json")?;
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
        let (text, _) = checked_profile(profile, &known)?;
        files.push(bytes("/usr/lib/sternpost/profile.yaml", text));
    }
    if recipe.kind == Kind::Recovery {
        files.extend(console::files(recipe.recovery_console));
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
    fn a_profile_with_mistakes_is_refused_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.yaml");
        fs::write(
            &path,
            "version: 1\nhostnam: box\nkubernetes:\n  distribution: nothing\n",
        )
        .unwrap();
        let facts = ImageFacts {
            product: "edge".into(),
            version: "1".into(),
            architecture: "x86_64".into(),
            security_version: 1,
            state_epoch: 1,
            build_time: 0,
            kubernetes: None,
            vm: vec!["none".into()],
            kernel: String::new(),
        };
        let error = checked_profile(&path, &facts).unwrap_err().to_string();
        assert!(
            error.contains("site.yaml:2") && error.contains("hostnam"),
            "{error}"
        );
        fs::write(&path, "version: 1\nhostname: box\n").unwrap();
        assert!(checked_profile(&path, &facts).is_ok());
    }

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
