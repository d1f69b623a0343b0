//! Downloads into the cache. Only what has the SHA-256 that was asked for is kept.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::cache::Cache;
use crate::step::{Step, Workshop};

/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// The file with this SHA-256: from the cache, or from `url`. `what` is shown.
///
/// # Errors
///
/// If the server does not give it, or gives something else.
pub async fn download(workshop: &Workshop, what: &str, url: &str, sha256: &str) -> Result<PathBuf> {
    let (cache, wanted) = (workshop.cache().clone(), sha256.to_owned());
    if let Some(path) = tokio::task::spawn_blocking(move || cache.blob(&wanted)).await? {
        return Ok(path);
    }
    let step = workshop.progress().start(&format!("download {what}"));
    let (cache, url, wanted) = (workshop.cache().clone(), url.to_owned(), sha256.to_owned());
    let (step, fetched) = tokio::task::spawn_blocking(move || {
        let fetched =
            fetch(&cache, &url, &wanted, &step).with_context(|| format!("cannot download {url}"));
        (step, fetched)
    })
    .await?;
    let path = fetched.map_err(|error| workshop.explain_space(error))?;
    step.done();
    Ok(path)
}

fn fetch(cache: &Cache, url: &str, sha256: &str, step: &Step) -> Result<PathBuf> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(SILENCE))
        .timeout_recv_response(Some(SILENCE))
        .build()
        .into();
    let mut response = agent.get(url).call()?;
    if let Some(length) = response.body().content_length() {
        step.total(length);
    }
    let mut file = tempfile::NamedTempFile::new_in(cache.directory("tmp")?)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut body = response.body_mut().as_reader();
    loop {
        let length = body.read(&mut buffer)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else {
            break;
        };
        hash.update(part);
        file.write_all(part)?;
        step.advance(length as u64);
    }
    let found = hex::encode(hash.finalize());
    if found != sha256 {
        bail!("what came has SHA-256 {found}, {sha256} was wanted; nothing of it is used");
    }
    cache.commit_blob(sha256, file)
}
