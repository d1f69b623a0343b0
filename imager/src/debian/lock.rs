//! Locks: which packages, exactly.
//!
//! [`resolve`] asks the tools tree's apt, over the archive's signed indexes and an empty system,
//! what a recipe's packages are and need. The indexes are kept in the cache and fetched again
//! after a day, or when a package is gone from the mirror. The answer is a [`Lock`]: every
//! package by name, version and SHA-256, for each architecture. A build that is given a lock
//! does not ask.
//!
//! The lock of a system's recipe pins its recovery system as well: an image is made of both.
//!
//! A root for the other architecture is configured with this one's programs (see `root`), so a
//! lock has, for each architecture, both lists.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::iter;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use crate::arch::{Architecture, Names as _};
use crate::recipe::Recipe;
use crate::sources::address;
use crate::workshop::Workshop;
use crate::workshop::cache::{KeyBuilder, hash_file, is_sha256};

/// How long fetched indexes are used.
const FRESH: Duration = Duration::from_secs(24 * 3600);

/// What every lock begins with.
pub const FIRST_WORDS: &str = "# Made by `imager lock`;";

/// The version of the lock's format.
const FORMAT: u32 = 1;

/// One package, pinned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Of the .deb, hexadecimal.
    pub sha256: String,
    /// Of the .deb, in bytes.
    pub size: u64,
    /// Where the .deb was when it was pinned; who asks for it is the recipe's mirror to say.
    #[serde(serialize_with = "address::serialize_shown")]
    pub url: String,
}

/// What a root of one architecture is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// The kernel, unpacked only.
    pub kernel: Package,
    pub packages: Vec<Package>,
}

/// Every package of an image, pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// 1.
    pub format: u32,
    /// Name of the recipe that this was made for.
    pub recipe: String,
    /// What the recipe asked for, hashed: a lock for another list is refused.
    pub wanted: String,
    /// By architecture.
    pub sets: BTreeMap<Architecture, Set>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Box<Lock>>,
}

impl Lock {
    /// The lock to build a recipe with: the one that is given, or NAME.lock beside the recipe, if
    /// somebody put it there.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not one for this recipe.
    pub fn find(recipe: &Recipe, given: Option<&Path>) -> Result<Option<Self>> {
        let beside = recipe.path.with_extension("lock");
        let path = given.or_else(|| beside.is_file().then_some(beside.as_path()));
        path.map(|path| Self::read(path, recipe)).transpose()
    }

    fn read(path: &Path, recipe: &Recipe) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the lock {}", path.display()))?;
        let lock = Self::parse(&text)
            .with_context(|| format!("cannot use the lock {}", path.display()))?;
        lock.check(recipe)
            .with_context(|| format!("cannot use the lock {}", path.display()))?;
        ensure!(
            recipe.recovery.is_none() || lock.recovery.is_some(),
            "{} does not pin the recovery system; make it again with `imager lock`",
            path.display()
        );
        Ok(lock)
    }

    /// Reads a lock, that of a recovery system in it included.
    ///
    /// # Errors
    ///
    /// It is not a lock, or pins a package by something else than a SHA-256: by that name the cache
    /// looks for the package, and deletes what is not it.
    pub fn parse(text: &str) -> Result<Self> {
        let lock: Self = toml::from_str(text).context("it is not a lock")?;
        for lock in iter::successors(Some(&lock), |lock| lock.recovery.as_deref()) {
            let format = lock.format;
            ensure!(
                format == FORMAT,
                "it has format {format}; this imager reads format {FORMAT}"
            );
            for set in lock.sets.values() {
                for package in iter::once(&set.kernel).chain(&set.packages) {
                    ensure!(
                        is_sha256(&package.sha256),
                        "it pins the package `{}` by {:?}, which is not 64 lower-case hexadecimal digits",
                        package.name,
                        package.sha256
                    );
                }
            }
        }
        Ok(lock)
    }

    /// Checks that this pins what the recipe asks for.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        ensure!(
            self.wanted == wanted(recipe),
            "it does not fit the recipe {}, whose packages were changed since; make it again with `imager lock`",
            recipe.path.display()
        );
        Ok(())
    }

    /// The text of the lock.
    ///
    /// # Errors
    ///
    /// None that happen: its fields can be written as TOML.
    pub fn to_text(&self) -> Result<String> {
        Ok(format!(
            "{FIRST_WORDS} pins every package of the recipe `{}`.\n{}",
            self.recipe,
            toml::to_string(self)?
        ))
    }

    /// The list for one architecture.
    pub fn set(&self, architecture: Architecture) -> Result<&Set> {
        self.sets.get(&architecture).with_context(|| {
            format!(
                "the lock of `{}` has no packages for {architecture}",
                self.recipe
            )
        })
    }
}

/// Resolves a recipe for an architecture, and for the host's, with which a foreign root is
/// configured. `fresh`: fetches the indexes even if they are less than a day old.
///
/// # Errors
///
/// The mirror cannot be reached, or packages are missing or contradict each other.
pub async fn resolve(
    workshop: &Workshop,
    recipe: &Recipe,
    architecture: Architecture,
    fresh: bool,
) -> Result<Lock> {
    let mut sets = BTreeMap::new();
    for each in [architecture, Architecture::OWN] {
        if let std::collections::btree_map::Entry::Vacant(slot) = sets.entry(each) {
            // The host's list is there to configure with: what exists for it alone is not wanted.
            let list = names(recipe, each, architecture);
            slot.insert(resolve_set(workshop, recipe, each, &list, fresh).await?);
        }
    }
    Ok(Lock {
        format: FORMAT,
        recipe: recipe.name.clone(),
        wanted: wanted(recipe),
        sets,
        recovery: None,
    })
}

/// The packages to ask for: those of `architecture`; if it only serves to configure a root for
/// `target`, those that both have.
fn names(recipe: &Recipe, architecture: Architecture, target: Architecture) -> Vec<String> {
    let own = recipe
        .packages
        .get(&architecture)
        .cloned()
        .unwrap_or_default();
    if architecture == target {
        return own;
    }
    let other = recipe.packages.get(&target).cloned().unwrap_or_default();
    own.into_iter()
        .filter(|name| other.contains(name))
        .collect()
}

/// What a recipe asks for, in one hash.
fn wanted(recipe: &Recipe) -> String {
    let mut key = KeyBuilder::new("wanted-1")
        .value("suite", &recipe.suite)
        .value("components", recipe.components.join(" "));
    for architecture in Architecture::ALL {
        let mut names = recipe
            .packages
            .get(&architecture)
            .cloned()
            .unwrap_or_default();
        names.sort();
        key = key.value(architecture.name(), names.join(" ")).value(
            "kernel",
            recipe.kernel.get(&architecture).map_or("", String::as_str),
        );
    }
    key.finish().to_string()
}

async fn resolve_set(
    workshop: &Workshop,
    recipe: &Recipe,
    architecture: Architecture,
    names: &[String],
    fresh: bool,
) -> Result<Set> {
    let kernel = recipe.kernel.get(&architecture).with_context(|| {
        format!(
            "the recipe {} has no kernel for {architecture}; name one under [kernel]",
            recipe.path.display()
        )
    })?;
    let apt = Apt::open(workshop, recipe, architecture, fresh).await?;
    let key = KeyBuilder::new("resolved-3")
        .value("indexes", apt.state()?)
        .value("names", names.join(" "))
        .value("kernel", kernel)
        .finish();
    let made = workshop
        .step(
            "resolved",
            &format!("which packages ({architecture})"),
            &key,
            async |out: &Path, _| {
                let set = Set {
                    packages: apt.install(names).await?,
                    kernel: apt.kernel(kernel).await?,
                };
                Ok(fs::write(out.join("set.json"), serde_json::to_vec(&set)?)?)
            },
        )
        .await?;
    let set = fs::read(made.join("set.json"))?;
    serde_json::from_slice(&set).context("cannot read what was resolved before")
}

/// apt in the tools tree, for one archive and architecture.
struct Apt<'w> {
    workshop: &'w Workshop,
    directory: PathBuf,
    config: PathBuf,
}

impl<'w> Apt<'w> {
    async fn open(
        workshop: &'w Workshop,
        recipe: &Recipe,
        architecture: Architecture,
        fresh: bool,
    ) -> Result<Self> {
        let sources = sources(recipe);
        let name = KeyBuilder::new("apt-1").value("sources", &sources).finish();
        let directory = workshop
            .cache()
            .directory("apt")?
            .join(format!("{}-{architecture}", &name.to_string()[..16]));
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let config = directory.join("apt.conf");
        let apt = Self {
            workshop,
            directory,
            config,
        };
        let _lock = {
            let (cache, key) = (workshop.cache().clone(), name.clone());
            tokio::task::spawn_blocking(move || cache.lock("apt", &key)).await??
        };
        apt.configure(&sources, architecture)?;
        // Until the indexes are here: what is asked after that is answered from them.
        let _told = tell_who_asks(&apt.directory.join("auth.conf"), recipe.mirror.as_deref())?;
        let stamp = apt.directory.join("fetched");
        let age = stamp
            .metadata()
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if fresh || age.is_none_or(|age| age > FRESH) {
            match apt.update(architecture).await {
                Ok(()) => fs::write(&stamp, "")?,
                // Without a network, what is known is better than nothing.
                Err(error) if age.is_some() && !fresh => workshop.progress().line(&format!(
                    "  ! the package indexes cannot be fetched; those of {} h ago are used ({error:#})",
                    age.unwrap_or_default().as_secs() / 3600
                )),
                Err(error) => return Err(error),
            }
        }
        Ok(apt)
    }

    fn configure(&self, sources: &str, architecture: Architecture) -> Result<()> {
        let directory = self.directory.display();
        fs::write(self.directory.join("sources.list"), sources)?;
        fs::write(self.directory.join("status"), "")?;
        let (debian, config) = (architecture.debian(), &self.config);
        fs::write(
            config,
            format!(
                r#"APT::Architecture "{debian}";
APT::Architectures {{ "{debian}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::ForceHash "SHA256";
Dir::State "{directory}";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Etc::SourceList "{directory}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::netrc "{directory}/auth.conf";
Dir::Etc::netrcparts "/dev/null";
Dir::Etc::TrustedParts "/usr/share/keyrings";
"#
            ),
        )
        .with_context(|| format!("cannot write {}", config.display()))
    }

    async fn update(&self, architecture: Architecture) -> Result<()> {
        let step = self
            .workshop
            .progress()
            .start(&format!("package indexes ({architecture})"));
        self.run("apt-get", &["update", "--error-on=any"])
            .await
            .context(
                "cannot fetch the package indexes; is there a network, and is the mirror right?",
            )?;
        step.done();
        Ok(())
    }

    /// What the answers depend on.
    fn state(&self) -> Result<String> {
        let lists = self.directory.join("lists");
        let mut releases: Vec<_> = fs::read_dir(&lists)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with("Release"))
            .collect();
        releases.sort();
        ensure!(
            !releases.is_empty(),
            "the package indexes in {} are gone; delete that directory and build again",
            lists.display()
        );
        let hashes: Vec<_> = releases
            .iter()
            .map(|path| hash_file(path))
            .collect::<std::io::Result<_>>()?;
        Ok(format!("{} {}", self.directory.display(), hashes.join(" ")))
    }

    /// The packages, what they need, and what is essential.
    async fn install(&self, names: &[String]) -> Result<Vec<Package>> {
        // To apt, apt itself is essential; to a system whose packages never change it is not.
        const ESSENTIAL: &str = "?and(?essential,?not(?exact-name(apt)))";
        let mut arguments = vec!["install", "--yes", "--print-uris", ESSENTIAL];
        arguments.extend(names.iter().map(String::as_str));
        let answer = self.run("apt-get", &arguments).await?;
        let mut packages = parse_uris(&answer)?;
        packages.sort();
        packages.dedup();
        Ok(packages)
    }

    /// The kernel's image package: what the package of that name depends on, or it itself.
    async fn kernel(&self, name: &str) -> Result<Package> {
        let answer = self
            .run("apt-cache", &["show", "--no-all-versions", name])
            .await?;
        let dependency = answer
            .lines()
            .find_map(|line| line.strip_prefix("Depends: "))
            .into_iter()
            .flat_map(|line| line.split(','))
            .map(|word| word.split_whitespace().next().unwrap_or_default())
            .find(|word| word.starts_with("linux-image-"));
        let image = dependency.unwrap_or(name);
        let answer = self
            .run("apt-get", &["download", "--print-uris", image])
            .await?;
        parse_uris(&answer)?
            .into_iter()
            .next()
            .with_context(|| format!("the archive has no kernel package `{image}`"))
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let tools = self.workshop.tools().await?;
        let output = tools
            .command(program)?
            .env("APT_CONFIG", &self.config)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{program} failed:\n    {}",
                said.trim().replace('\n', "\n    ")
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// In a file of apt's, so that what apt says has addresses without it. The file is gone when what is given back is.
fn tell_who_asks(path: &Path, mirror: Option<&str>) -> Result<Option<TempPath>> {
    // Of a build that was killed.
    let _ = fs::remove_file(path);
    let Some(line) = mirror.map(address::apt_auth).transpose()?.flatten() else {
        return Ok(None);
    };
    let what = || format!("cannot write {}", path.display());
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(what)?;
    let told = TempPath::try_from_path(path)?;
    file.write_all(line.as_bytes()).with_context(what)?;
    Ok(Some(told))
}

/// The same as the bootstrap tool's default, unless the recipe names a mirror.
fn sources(recipe: &Recipe) -> String {
    let (suite, components) = (&recipe.suite, recipe.components.join(" "));
    match &recipe.mirror {
        Some(mirror) => {
            let (mirror, _) = address::request(mirror);
            format!("deb {mirror} {suite} {components}\n")
        }
        None => format!(
            "deb http://deb.debian.org/debian {suite} {components}\n\
             deb http://deb.debian.org/debian {suite}-updates {components}\n\
             deb http://security.debian.org/debian-security {suite}-security {components}\n"
        ),
    }
}

/// `apt-get --print-uris`: `'URL' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HASH`.
fn parse_uris(text: &str) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('\'')) {
        let parsed = (|| {
            let (url, rest) = line[1..].split_once("' ")?;
            let mut words = rest.split_whitespace();
            let mut parts = words.next()?.strip_suffix(".deb")?.split('_');
            let package = Package {
                name: parts.next()?.to_owned(),
                version: parts.next()?.replace("%3a", ":"),
                architecture: parts.next()?.to_owned(),
                size: words.next()?.parse().ok()?,
                sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
                url: url.to_owned(),
            };
            (package.sha256.len() == 64).then_some(package)
        })();
        packages
            .push(parsed.with_context(|| format!("apt says what cannot be understood: {line}"))?);
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_prints_is_understood() {
        let digest = "0".repeat(64);
        let text = format!(
            "Reading package lists...\n\
             'http://h/pool/main/s/shadow/login_1%3a4.16.0-2+really2.41-5_amd64.deb' login_1%3a4.16.0-2+really2.41-5_amd64.deb 81088 SHA256:{digest}\n"
        );
        let packages = parse_uris(&text).unwrap();
        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].name, "login");
        assert_eq!(packages[0].version, "1:4.16.0-2+really2.41-5");
        assert_eq!(packages[0].architecture, "amd64");
        assert_eq!(packages[0].size, 81088);
    }

    #[test]
    fn a_weaker_hash_is_refused() {
        let line =
            "'http://h/a_1_all.deb' a_1_all.deb 10 MD5Sum:0123456789abcdef0123456789abcdef\n";
        assert!(parse_uris(line).is_err());
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let package = Package {
            name: "a".into(),
            version: "1".into(),
            architecture: "all".into(),
            sha256: "0".repeat(64),
            size: 1,
            url: "http://h/a".into(),
        };
        let set = Set {
            kernel: package.clone(),
            packages: vec![package],
        };
        let recovery = Lock {
            format: FORMAT,
            recipe: "recovery".into(),
            wanted: "w".into(),
            sets: BTreeMap::from([(Architecture::X86_64, set)]),
            recovery: None,
        };
        let lock = Lock {
            recipe: "r".into(),
            recovery: Some(Box::new(recovery.clone())),
            ..recovery
        };
        let read: Lock = toml::from_str(&lock.to_text().unwrap()).unwrap();
        assert_eq!(read, lock);
    }

    #[test]
    fn a_lock_and_what_apt_reads_do_not_say_who_asks() {
        let line = format!(
            "'https://me:secret@h/a.deb' a_1_all.deb 10 SHA256:{}\n",
            "0".repeat(64)
        );
        let packages = parse_uris(&line).unwrap();
        let set = Set {
            kernel: packages[0].clone(),
            packages,
        };
        let lock = Lock {
            format: FORMAT,
            recipe: "r".into(),
            wanted: "w".into(),
            sets: BTreeMap::from([(Architecture::X86_64, set.clone())]),
            recovery: None,
        };
        let (text, kept) = (
            lock.to_text().unwrap(),
            serde_json::to_string(&set).unwrap(),
        );
        for text in [text, kept] {
            assert!(
                text.contains("https://h/a.deb") && !text.contains("secret"),
                "{text}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("box.toml");
        let text = "product = \"box\"\n[debian]\nmirror = \"https://me:secret@h/debian\"\n\
                    [kernel]\nx86_64 = \"linux\"\n[packages]\n";
        fs::write(&file, text).unwrap();
        let list = sources(&Recipe::load(&file).unwrap());
        assert_eq!(list, "deb https://h/debian trixie main\n");
    }

    #[test]
    fn who_asks_is_told_while_it_is_asked() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.conf");
        // Left behind, for all to read.
        fs::write(&path, "old").unwrap();
        let told = tell_who_asks(&path, Some("https://me:secret@h/debian")).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with(" secret\n"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(told);
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        assert!(
            tell_who_asks(&path, Some("https://h/debian"))
                .unwrap()
                .is_none()
        );
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_cannot_name_a_file_outside_the_cache() {
        let lock = |sha256: &str| {
            let kernel = format!(
                "kernel = {{ name = \"k\", version = \"1\", architecture = \"all\", sha256 = \"{sha256}\", size = 1, url = \"u\" }}"
            );
            let own = "[sets.x86_64]\npackages = []\n";
            format!(
                "format = 1\nrecipe = \"r\"\nwanted = \"w\"\n{own}{}\n[recovery]\nformat = 1\nrecipe = \"r\"\nwanted = \"w\"\n[recovery.sets.x86_64]\npackages = []\n{kernel}\n",
                kernel.replace(sha256, &"0".repeat(64)),
            )
        };
        assert!(Lock::parse(&lock(&"0".repeat(64))).is_ok());
        for bad in ["/etc/passwd", "../../precious", &"A".repeat(64)] {
            let error = format!("{:#}", Lock::parse(&lock(bad)).unwrap_err());
            assert!(error.contains("which is not 64 lower-case"), "{error}");
        }
    }

    #[test]
    fn a_lock_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("box.toml");
        let write = |packages: &str| {
            let text = format!(
                "product = \"box\"\nrecovery = \"box.toml\"\n[kernel]\nx86_64 = \"linux\"\n[packages]\ncommon = [{packages}]\n"
            );
            fs::write(&file, text).unwrap();
            Recipe::load(&file).unwrap()
        };
        let recipe = write("\"bash\"");
        assert_eq!(Lock::find(&recipe, None).unwrap(), None);
        let mut lock = Lock {
            format: FORMAT,
            recipe: "box".into(),
            wanted: wanted(&recipe),
            sets: BTreeMap::new(),
            recovery: None,
        };
        let refused = |lock: &Lock, recipe: &Recipe, reason: &str| {
            fs::write(folder.path().join("box.lock"), lock.to_text().unwrap()).unwrap();
            let error = format!("{:#}", Lock::find(recipe, None).unwrap_err());
            assert!(error.contains(reason), "{error}");
        };
        refused(&lock, &recipe, "does not pin the recovery system");
        lock.recovery = Some(Box::new(lock.clone()));
        refused(&lock, &write("\"dash\""), "packages were changed since");
        assert_eq!(Lock::find(&recipe, None).unwrap(), Some(lock));
        assert!(Lock::find(&recipe, Some(Path::new("/none"))).is_err());
    }
}
