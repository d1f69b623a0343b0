//! Sources of what is not a Debian package.
//!
//! An artefact has a list of sources. They are tried in order, and the first that has it wins;
//! only what has the SHA-256 of the recipe is used. If none has it, the error says of each why.

pub mod file;
pub mod go;
pub mod image;
pub mod url;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::arch::Architecture;
use crate::recipe::{Artefact, Source};
use crate::step::Workshop;

/// The file of an artefact, in the cache or on the host. `given` are the files of
/// `--source NAME=FILE`; such a file has to have the hash of the recipe, too, where it has one.
///
/// # Errors
///
/// No source has it.
pub async fn fetch(
    workshop: &Workshop,
    artefact: &Artefact,
    architecture: Architecture,
    given: &BTreeMap<String, PathBuf>,
) -> Result<PathBuf> {
    if let Some(path) = given.get(&artefact.name) {
        let digests: Vec<&str> = artefact
            .sources
            .iter()
            .filter_map(|source| match source {
                Source::Url {
                    sha256,
                    member: None,
                    ..
                }
                | Source::File { sha256, .. } => sha256.get(&architecture).map(String::as_str),
                _ => None,
            })
            .collect();
        return file::given(path, &digests)
            .with_context(|| format!("--source {}={}", artefact.name, path.display()));
    }
    let mut reasons = Vec::new();
    for source in &artefact.sources {
        let found = match source {
            Source::Url {
                url,
                sha256,
                member,
            } => match (url.get(&architecture), sha256.get(&architecture)) {
                (Some(url), Some(sha256)) => {
                    url::fetch(workshop, url, sha256, member.as_deref()).await
                }
                _ => Err(anyhow::anyhow!("there is no address for {architecture}")),
            },
            Source::File { path, sha256 } => match sha256.get(&architecture) {
                Some(sha256) => file::given(path, &[sha256]),
                None => Err(anyhow::anyhow!("there is no SHA-256 for {architecture}")),
            },
            Source::Go(source) => go::build(workshop, source, architecture).await,
            Source::Image(source) => image::build(workshop, source, architecture).await,
        };
        match found {
            Ok(path) => return Ok(path),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    bail!(
        "no source has the artefact `{}` for {architecture}; give it with --source {}=FILE:\n  {}",
        artefact.name,
        artefact.name,
        reasons.join("\n  ")
    )
}
