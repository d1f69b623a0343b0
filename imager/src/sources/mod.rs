//! Where programs and files come from that are not Debian packages.
//!
//! An artefact has a list of sources, tried in order: the first that has it wins. What a URL or a
//! file gives is used only if its SHA-256 is the one in the recipe; what is built from Go modules,
//! only from modules with the sums in go.sum. `--source NAME=FILE` goes before all of them.

pub mod file;
pub mod go;
pub mod image;
pub mod url;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::arch::Architecture;
use crate::cache::KeyBuilder;
use crate::recipe::{Artefact, Source};
use crate::step::{Step, Workshop};

/// The artefact as a file on the host. `given` is what `--source` says of it.
///
/// # Errors
///
/// If no source has it; the message says of each why.
pub async fn obtain(
    workshop: &Workshop,
    artefact: &Artefact,
    architecture: Architecture,
    given: Option<&Path>,
) -> Result<PathBuf> {
    if let Some(path) = given {
        return obtain_given(artefact, architecture, path).with_context(|| {
            format!(
                "--source {}={} cannot be used",
                artefact.name,
                path.display()
            )
        });
    }
    let mut reasons = Vec::new();
    for source in &artefact.sources {
        match obtain_from(workshop, artefact, source, architecture).await {
            Ok(path) => return Ok(path),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    Err(anyhow!(
        "no source has {} for {architecture}:\n  {}\ngive it with --source {}=FILE",
        artefact.name,
        reasons.join("\n  "),
        artefact.name
    ))
}

/// A file that the command line names. It has to be what the recipe means, where the recipe says so.
fn obtain_given(artefact: &Artefact, architecture: Architecture, path: &Path) -> Result<PathBuf> {
    let known: Vec<&str> = artefact
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
    if known.is_empty() {
        bail!(
            "the recipe has no SHA-256 of {} for {architecture}; add a source with `file` and `sha256`",
            artefact.name
        );
    }
    file::check(path, &known)?;
    Ok(path.to_owned())
}

async fn obtain_from(
    workshop: &Workshop,
    artefact: &Artefact,
    source: &Source,
    architecture: Architecture,
) -> Result<PathBuf> {
    let none = || anyhow!("it has no source of this kind for {architecture}");
    match source {
        Source::Url {
            url,
            sha256,
            member,
        } => {
            let (url, sha256) = (
                url.get(&architecture).ok_or_else(none)?,
                sha256.get(&architecture).ok_or_else(none)?,
            );
            let archive = url::download(workshop, &artefact.name, url, sha256).await?;
            match member {
                Some(member) => unpack(workshop, &archive, sha256, member).await,
                None => Ok(archive),
            }
        }
        Source::File { path, sha256 } => {
            file::check(path, &[sha256.get(&architecture).ok_or_else(none)?])?;
            Ok(path.clone())
        }
        Source::Go(source) => go::build(workshop, source, architecture).await,
        Source::Image(source) => image::build(workshop, source, architecture).await,
    }
}

/// One file of a .tar.gz.
async fn unpack(
    workshop: &Workshop,
    archive: &Path,
    sha256: &str,
    member: &str,
) -> Result<PathBuf> {
    let key = KeyBuilder::new("member 1")
        .value("archive", sha256)
        .value("member", member)
        .finish();
    let made = workshop
        .step(
            "member",
            &format!("unpack {member}"),
            &key,
            async |folder: &Path, _: &Step| {
                let output = std::fs::File::create(folder.join("file"))?;
                let result = workshop
                    .tools()
                    .await?
                    .command("tar")?
                    .args(["--extract", "--gzip", "--to-stdout", "--file"])
                    .arg(archive)
                    .args(["--", member])
                    .stdin(Stdio::null())
                    .stdout(output)
                    .stderr(Stdio::piped())
                    .output()
                    .await
                    .context("cannot run tar in the tools tree")?;
                if !result.status.success() {
                    bail!(
                        "cannot take {member} out of {}: {}",
                        archive.display(),
                        String::from_utf8_lossy(&result.stderr).trim()
                    );
                }
                Ok(())
            },
        )
        .await?;
    Ok(made.join("file"))
}
