//! Packages: downloads them into the cache, and gives them out as the local archive that the
//! bootstrap tool installs from.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::debian::lock::Package;
use crate::sources::url::download;
use crate::workshop::Workshop;

/// How many downloads go on at once.
const PARALLEL: usize = 8;

/// Downloads what is not in the cache.
///
/// # Errors
///
/// A package cannot be had, or is not the one that was pinned.
pub async fn fetch(workshop: &Workshop, what: &str, packages: &[Package]) -> Result<()> {
    let cache = workshop.cache();
    let missing: Vec<Package> = packages
        .iter()
        .filter(|package| {
            // Their content is checked where they are used; here, reading it all would only cost.
            let path = cache.blob_path(&package.sha256);
            !cache.claim(&path)
                || path
                    .metadata()
                    .map_or(true, |meta| meta.len() != package.size)
        })
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = workshop
        .progress()
        .start(&format!("{} packages of {what}", missing.len()));
    step.total(missing.iter().map(|package| package.size).sum());
    let received = Arc::new(AtomicU64::new(0));
    let gate = Arc::new(Semaphore::new(PARALLEL));
    let mut jobs = JoinSet::new();
    for package in missing {
        let (cache, gate, received) = (cache.clone(), gate.clone(), received.clone());
        let url = workshop.credentials().complete(&package.url);
        jobs.spawn(async move {
            let _permit = gate.acquire_owned().await?;
            tokio::task::spawn_blocking(move || {
                download(&cache, &url, &package.sha256, &|n| {
                    received.fetch_add(n, Ordering::Relaxed);
                })
                .map(|_| ())
            })
            .await?
        });
    }
    let mut shown = 0;
    let mut show = || {
        let now = received.load(Ordering::Relaxed);
        step.advance(now - shown);
        shown = now;
    };
    loop {
        tokio::select! {
            done = jobs.join_next() => match done {
                Some(done) => done?.map_err(|error| workshop.explain_space(error))?,
                None => break,
            },
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => show(),
        }
    }
    show();
    step.done();
    Ok(())
}

/// Makes `directory` an archive of these packages for apt: `deb [trusted=yes] copy:DIRECTORY ./`.
/// Every file is checked against its pinned hash on the way.
///
/// # Errors
///
/// A package is not in the cache, or cannot be read.
pub async fn local_archive(
    workshop: &Workshop,
    packages: &[Package],
    directory: &Path,
) -> Result<()> {
    let mut names = Vec::new();
    for package in packages {
        let blob = workshop.cache().blob(&package.sha256).with_context(|| {
            format!(
                "the package {} is damaged in the cache; build again",
                package.name
            )
        })?;
        let name = format!("{}.deb", package.sha256);
        let path = directory.join(&name);
        if fs::hard_link(&blob, &path).is_err() {
            fs::copy(&blob, &path)
                .with_context(|| format!("cannot copy a package to {}", path.display()))?;
        }
        names.push(name);
    }
    // The index says of each package what the package says of itself, and where it is.
    const INDEX: &str = "for deb; do dpkg-deb -f \"$deb\" || exit 1; \
        printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \
        \"$deb\" \"$(stat -c %s \"$deb\")\" \"${deb%.deb}\"; done";
    let tools = workshop.tools().await?;
    let index = fs::File::create(directory.join("Packages"))?;
    let status = tools
        .command_in(directory, "sh")?
        .args(["-c", INDEX, "sh"])
        .args(names)
        .stdout(index)
        .status()
        .await?;
    ensure!(status.success(), "a package cannot be read");
    Ok(())
}
