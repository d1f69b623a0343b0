//! Sources of what is not a Debian package.
//!
//! An artefact has a list of sources. They are tried in order, and the first that has it wins;
//! only what has the SHA-256 of the recipe is used. If none has it, the error says of each why.

pub mod address;
pub mod file;
pub mod go;
pub mod image;
pub mod oci;
pub mod url;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Architecture;
use crate::recipe::{Artefact, Recipe, Source};
use crate::sources::address::shown;
use crate::workshop::Workshop;
use crate::workshop::cache::hash_file;

/// Checks that every file of `--source NAME=FILE` is for an artefact of one of the recipes.
///
/// # Errors
///
/// One is not: most likely its name is mistyped, and what was to be replaced would not be.
pub fn check_names(given: &BTreeMap<String, PathBuf>, recipes: &[&Recipe]) -> Result<()> {
    let artefacts = recipes.iter().flat_map(|recipe| &recipe.artefacts);
    let known: Vec<&str> = artefacts.map(|artefact| artefact.name.as_str()).collect();
    for (name, path) in given {
        ensure!(
            known.contains(&name.as_str()),
            "--source {name}={}: the recipe has no such artefact; it has {}",
            path.display(),
            match known.is_empty() {
                true => "none".to_owned(),
                false => known.join(", "),
            }
        );
    }
    Ok(())
}

/// Where an artefact was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its file, in the cache or on the host.
    pub path: PathBuf,
    /// Its source for the list of what is in an image: a [shown](address) address (`#MEMBER` of an archive),
    /// `file:NAME`, `go:PACKAGE@VERSION`, or `oci:` and a program's. Of several sources of the
    /// same bytes it is the recipe's first, so that an image does not depend on which of them was
    /// at hand.
    pub source: String,
}

/// The file of an artefact, in the cache or on the host. `given` are the files of
/// `--source NAME=FILE`, which go before the recipe's sources.
///
/// # Errors
///
/// No source has it, or the file that is given is not one that the recipe has a SHA-256 of.
pub async fn fetch(
    workshop: &Workshop,
    artefact: &Artefact,
    architecture: Architecture,
    given: &BTreeMap<String, PathBuf>,
) -> Result<Found> {
    if let Some(path) = given.get(&artefact.name) {
        return replaced(artefact, architecture, path)
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
                Some(sha256) => file::given(path, sha256),
                None => Err(anyhow::anyhow!("there is no SHA-256 for {architecture}")),
            },
            Source::Go(source) => go::build(workshop, source, architecture).await,
            Source::Image(source) => image::build(workshop, source, architecture).await,
        };
        match found {
            Ok(path) => {
                let pin = pin(source, architecture);
                let same = pin.and_then(|pin| first(artefact, pin, architecture));
                let source = describe(same.unwrap_or(source), architecture)?;
                return Ok(Found { path, source });
            }
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

/// See [`Found::source`].
fn describe(source: &Source, architecture: Architecture) -> Result<String> {
    Ok(match source {
        Source::Url { url, member, .. } => {
            let url = url.get(&architecture).map_or("", String::as_str);
            match member {
                Some(member) => format!("{}#{member}", shown(url)),
                None => shown(url),
            }
        }
        Source::File { path, .. } => {
            // Its folder is this host's own.
            let name = path.file_name().unwrap_or_default();
            format!("file:{}", name.to_string_lossy())
        }
        Source::Go(program) => format!("go:{}", go::versioned(program)?),
        Source::Image(image) => format!("oci:{}", go::versioned(&image.program)?),
    })
}

/// What a source's bytes are known by: a SHA-256, and the path in the archive that has it.
fn pin(source: &Source, architecture: Architecture) -> Option<(&str, Option<&str>)> {
    let (sha256, member) = match source {
        Source::Url { sha256, member, .. } => (sha256, member.as_deref()),
        Source::File { sha256, .. } => (sha256, None),
        Source::Go(_) | Source::Image(_) => return None,
    };
    Some((sha256.get(&architecture)?, member))
}

/// The first source of those bytes.
fn first<'a>(
    artefact: &'a Artefact,
    wanted: (&str, Option<&str>),
    architecture: Architecture,
) -> Option<&'a Source> {
    let mut sources = artefact.sources.iter();
    sources.find(|source| pin(source, architecture) == Some(wanted))
}

/// The file that stands in for all sources of an artefact: only one that the recipe has the
/// SHA-256 of, since the recipe says what is in an image and the command line does not.
fn replaced(artefact: &Artefact, architecture: Architecture, path: &Path) -> Result<Found> {
    let what = || format!("cannot read {}", path.display());
    let found = hash_file(path).with_context(what)?;
    if let Some(source) = first(artefact, (&found, None), architecture) {
        return Ok(Found {
            path: path.canonicalize().with_context(what)?,
            source: describe(source, architecture)?,
        });
    }
    let pins = artefact
        .sources
        .iter()
        .filter_map(|source| pin(source, architecture));
    let known: Vec<&str> = pins
        .filter(|(_, member)| member.is_none())
        .map(|(sha256, _)| sha256)
        .collect();
    ensure!(
        !known.is_empty(),
        "the recipe has no SHA-256 of `{}` for {architecture}, and nothing unchecked is used; \
         add a source with the one of this file to that artefact, in the recipe or in one that extends it:\n\
         [[artefacts.sources]]\n\
         file = \"{}\"\n\
         sha256 = \"{found}\"",
        artefact.name,
        path.display()
    );
    bail!("its SHA-256 is {found}, not {}", known.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::GoSource;
    use crate::workshop::Progress;
    use crate::workshop::cache::{Cache, hash_bytes};

    const HERE: Architecture = Architecture::X86_64;

    /// A folder with files, and a workshop that has no tools.
    struct Host {
        folder: tempfile::TempDir,
        workshop: Workshop,
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let cache = folder.path().join("cache");
            Self {
                workshop: Workshop::open(Some(&cache), Progress::hidden()).unwrap(),
                folder,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        /// Writes a file and gives the source that takes only `wanted`.
        fn file(&self, name: &str, content: &str, wanted: &str) -> Source {
            std::fs::write(self.path(name), content).unwrap();
            self.missing(name, wanted)
        }

        fn missing(&self, name: &str, wanted: &str) -> Source {
            Source::File {
                path: self.path(name),
                sha256: BTreeMap::from([(HERE, hash_bytes(wanted.as_bytes()))]),
            }
        }

        async fn fetch(&self, sources: Vec<Source>, given: Option<&str>) -> Result<PathBuf> {
            let given = given.map(|file| ("tool".to_owned(), self.path(file)));
            let given = given.into_iter().collect();
            let found = fetch(&self.workshop, &artefact(sources), HERE, &given).await?;
            Ok(found.path)
        }
    }

    fn artefact(sources: Vec<Source>) -> Artefact {
        Artefact {
            name: "tool".into(),
            path: "/usr/bin/tool".into(),
            mode: 0o755,
            sources,
        }
    }

    /// As a download that was made before: without a network.
    fn downloaded(cache: &Cache, content: &str, member: Option<&str>) -> Source {
        let sha256 = hash_bytes(content.as_bytes());
        std::fs::write(cache.blob_path(&sha256), content).unwrap();
        Source::Url {
            url: BTreeMap::from([(HERE, "http://localhost:1/tool".into())]),
            sha256: BTreeMap::from([(HERE, sha256)]),
            member: member.map(str::to_owned),
        }
    }

    fn built() -> Source {
        Source::Go(GoSource {
            modules: "/nowhere".into(),
            package: "example.org/tool".into(),
            ldflags: Vec::new(),
            tags: Vec::new(),
        })
    }

    #[tokio::test]
    async fn the_first_source_that_has_it_wins() {
        let host = Host::new();
        let one = host.file("one", "1", "1");
        let two = downloaded(host.workshop.cache(), "2", None);
        let found = host.fetch(vec![one.clone(), two.clone(), built()], None);
        assert_eq!(found.await.unwrap(), host.path("one"));
        let found = host.fetch(vec![two.clone(), one], None).await.unwrap();
        assert_eq!(std::fs::read(found).unwrap(), b"2");
        let found = host.fetch(vec![host.missing("none", "0"), built(), two], None);
        assert_eq!(std::fs::read(found.await.unwrap()).unwrap(), b"2");
    }

    #[tokio::test]
    async fn what_does_not_match_is_passed_over() {
        let host = Host::new();
        let wrong = host.file("wrong", "changed", "content");
        let right = host.file("right", "content", "content");
        let found = host.fetch(vec![wrong.clone(), right], None).await.unwrap();
        assert_eq!(found, host.path("right"));
        let error = host.fetch(vec![wrong, host.missing("none", "content")], None);
        let error = error.await.unwrap_err().to_string();
        for part in ["`tool`", "wrong has the SHA-256", "none", "--source tool="] {
            assert!(error.contains(part), "{part} is not in\n{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_given_has_to_have_a_digest_of_the_recipe() {
        let host = Host::new();
        let sources = || vec![host.file("one", "1", "1"), host.missing("two", "2")];
        std::fs::write(host.path("given"), "2").unwrap();
        let found = host.fetch(sources(), Some("given")).await.unwrap();
        assert_eq!(found, host.path("given"));
        std::fs::write(host.path("given"), "3").unwrap();
        let error = host.fetch(sources(), Some("given")).await.unwrap_err();
        let error = format!("{error:#}");
        let digests = ["1", "2", "3"].map(|content| hash_bytes(content.as_bytes()));
        assert!(
            digests.iter().all(|digest| error.contains(digest)),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_file_is_refused_where_the_recipe_has_no_digest() {
        let host = Host::new();
        std::fs::write(host.path("given"), "1").unwrap();
        let in_archive = downloaded(host.workshop.cache(), "1", Some("bin/tool"));
        let error = host.fetch(vec![built(), in_archive], Some("given")).await;
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("has no SHA-256 of `tool`"), "{error}");
        assert!(error.contains(&hash_bytes(b"1")), "{error}");
    }

    #[test]
    fn a_name_that_no_recipe_has_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("box.toml");
        std::fs::write(
            &file,
            "product = \"box\"\n[kernel]\nx86_64 = \"linux\"\n[packages]\n",
        )
        .unwrap();
        let mut recipe = Recipe::load(&file).unwrap();
        let given = BTreeMap::from([("tol".to_owned(), PathBuf::from("file"))]);
        let error = check_names(&given, &[&recipe]).unwrap_err().to_string();
        assert!(error.contains("--source tol=file") && error.contains("it has none"));
        recipe.artefacts.push(artefact(vec![built()]));
        let error = check_names(&given, &[&recipe]).unwrap_err().to_string();
        assert!(error.contains("it has tool"), "{error}");
        let given = BTreeMap::from([("tool".to_owned(), PathBuf::from("file"))]);
        check_names(&given, &[&recipe]).unwrap();
    }

    #[tokio::test]
    async fn the_same_bytes_have_the_same_source() {
        let host = Host::new();
        let cache = host.workshop.cache();
        let address = downloaded(cache, "1", None);
        let file = host.file("one", "1", "1");
        let given = BTreeMap::from([("tool".to_owned(), host.path("one"))]);
        for (sources, given, expected) in [
            (vec![address.clone()], None, "http://localhost:1/tool"),
            (vec![file.clone()], None, "file:one"),
            (vec![host.missing("none", "1"), file], None, "file:none"),
            (
                vec![built(), address],
                Some(given),
                "http://localhost:1/tool",
            ),
        ] {
            let (artefact, given) = (artefact(sources), given.unwrap_or_default());
            let found = fetch(&host.workshop, &artefact, HERE, &given)
                .await
                .unwrap();
            assert_eq!(found.source, expected);
        }
        let mut in_archive = downloaded(cache, "1", Some("bin/tool"));
        let said = describe(&in_archive, HERE).unwrap();
        assert_eq!(said, "http://localhost:1/tool#bin/tool");
        if let Source::Url { url, .. } = &mut in_archive {
            url.insert(HERE, "https://me:secret@h/tool?key=secret".into());
        }
        let said = describe(&in_archive, HERE).unwrap();
        assert_eq!(said, "https://h/tool?key=…#bin/tool");
    }

    #[test]
    fn the_programs_of_the_repository_have_a_version() {
        let recipes = Path::new(env!("STERNPOST_SOURCE")).join("recipes/images");
        let recipe = Recipe::load(&recipes.join("kubeadm.toml")).unwrap();
        let said = |name: &str| {
            let artefact = recipe.artefacts.iter().find(|a| a.name == name).unwrap();
            describe(&artefact.sources[0], HERE).unwrap()
        };
        assert!(said("kubelet").starts_with("go:k8s.io/kubernetes/cmd/kubelet@v1."));
        assert!(said("etcd").starts_with("go:go.etcd.io/etcd/server/v3@v3."));
        assert_eq!(said("control-plane-image"), "oci:sternpost/pause");
    }
}
