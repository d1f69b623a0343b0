//! Packages: downloads them into the cache, and gives them out as the local archive that the
//! bootstrap tool installs from.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::debian::lock::Package;
use crate::sources::url::download;
use crate::workshop::Workshop;
use crate::workshop::cache::Cache;

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

/// The newest of these packages, and when it was built (seconds since 1970): the time that its .deb gives its
/// own parts, which for Debian's is that of its last change. Their files alone say it, so that the same
/// packages say the same on any day; one without a time does not count.
///
/// # Errors
/// One cannot be read, or is no .deb: the error says what to do.
pub fn newest<'p>(
    cache: &Cache,
    packages: impl IntoIterator<Item = &'p Package>,
) -> Result<Option<(u64, &'p Package)>> {
    let mut newest = None;
    for package in packages {
        let path = cache.blob_path(&package.sha256);
        let time = time_of(&path).with_context(|| {
            format!(
                "the package {} is damaged in the cache; delete {} and build again",
                package.name,
                path.display()
            )
        })?;
        newest = newest.max(time.map(|time| (time, package)));
    }
    Ok(newest)
}

/// deb(5), ar(5): a magic, then the header of the first part: 16 bytes of name, 12 of time.
fn time_of(deb: &Path) -> Result<Option<u64>> {
    let mut start = [0; 36];
    fs::File::open(deb)?
        .read_exact(&mut start)
        .context("it is shorter than any .deb")?;
    let (magic, header) = start.split_at(8);
    ensure!(magic == b"!<arch>\n", "it is no .deb");
    let time = std::str::from_utf8(header.get(16..28).unwrap_or_default());
    Ok(time.ok().and_then(|time| time.trim().parse().ok()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workshop::cache::hash_bytes;

    fn package(cache: &Cache, name: &str, content: &str) -> Package {
        let sha256 = hash_bytes(content.as_bytes());
        fs::write(cache.blob_path(&sha256), content).unwrap();
        Package {
            name: name.into(),
            version: "1".into(),
            architecture: "all".into(),
            size: content.len() as u64,
            sha256,
            url: "http://h/a".into(),
        }
    }

    #[test]
    fn a_package_says_itself_when_it_was_built() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let deb = |name: &str, time: &str| {
            let content = format!(
                "!<arch>\ndebian-binary   {time:<12}0     0     100644  4         `\n2.0\n"
            );
            package(&cache, name, &content)
        };
        let packages = [
            deb("a", "1745606955"),
            deb("b", "1795194416"),
            deb("c", "7"),
            deb("d", ""),
            deb("e", "yesterday"),
        ];
        let (time, of) = newest(&cache, &packages).unwrap().unwrap();
        assert_eq!((time, &*of.name), (1_795_194_416, "b"));
        assert!(newest(&cache, []).unwrap().is_none());
        assert!(newest(&cache, &packages[3..]).unwrap().is_none());
        for (content, expected) in [
            ("something else that is longer than a header", "no .deb"),
            ("!<arch>\n", "shorter"),
        ] {
            let none = [package(&cache, "d", content)];
            let error = format!("{:#}", newest(&cache, &none).unwrap_err());
            let place = cache.blob_path(&none[0].sha256).display().to_string();
            for part in ["package d", &place, "build again", expected] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
