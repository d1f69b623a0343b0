//! Outputs on their way into the output folder.
//!
//! ```text
//! OUT/.imager-new/     locked by the build that fills it
//!   disk.raw, …        in the making
//!   complete.json      once all of them are whole and on the disk: what is put into place, and what goes
//! ```
//!
//! A build that ends before complete.json is written leaves the outputs of the one before as they are.
//! After that, one rename after the other gives each file its name, and what an earlier build left and this
//! one does not make is removed; where that is interrupted, whoever opens the folder next goes on with it.
//! Only files that a build names are touched.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::debian::lock::FIRST_WORDS;
use crate::workshop::durable;

const DIRECTORY: &str = ".imager-new";
const COMPLETE: &str = "complete.json";

/// What a build may leave, beside the lock, which is named after its recipe. In the order in which it is
/// listed.
pub(super) const NAMES: [&str; 11] = [
    "disk.raw",
    "disk.raw.zst",
    "bundle.spb",
    "recovery.spb",
    "loader.spb",
    "loader.efi",
    "uki.efi",
    "manifest.json",
    "manifest.dsse.json",
    "packages.json",
    "build.json",
];

/// A place for new outputs in the folder's own filesystem; removed when dropped.
#[derive(Debug)]
pub struct Staging {
    out: PathBuf,
    directory: PathBuf,
    _lock: Flock<File>,
}

/// What is put into place, and what goes.
#[derive(Debug, Serialize, Deserialize)]
struct Swap {
    names: Vec<String>,
    stale: Vec<String>,
}

impl Staging {
    /// Makes the folder if it is not there, waits until no other build is at work in it, and finishes what an
    /// interrupted one had begun to put into place; `say` hears of that.
    ///
    /// # Errors
    /// It cannot be written to.
    pub fn open(out: &Path, say: impl Fn(&str)) -> Result<Self> {
        let what = || format!("making outputs in {}", out.display());
        fs::create_dir_all(out).with_context(what)?;
        let directory = out.join(DIRECTORY);
        let lock = loop {
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(what);
                }
                _ => {}
            }
            let Ok(file) = File::open(&directory) else {
                continue;
            };
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((file, _)) => {
                    say(&format!(
                        "  … waiting for another build that makes outputs in {}",
                        out.display()
                    ));
                    Flock::lock(file, FlockArg::LockExclusive)
                        .map_err(|(_, errno)| errno)
                        .with_context(what)?
                }
            };
            // Whoever had it before may have removed it in between.
            let locked = lock.metadata().with_context(what)?.ino();
            if fs::metadata(&directory).is_ok_and(|there| there.ino() == locked) {
                break lock;
            }
        };
        let staging = Self {
            out: out.to_owned(),
            directory,
            _lock: lock,
        };
        if let Some(swap) = staging.interrupted()? {
            let missing = staging.apply(&swap).with_context(what)?;
            let missing = match missing.is_empty() {
                true => String::new(),
                false => format!("; missing of them: {}", missing.join(", ")),
            };
            say(&format!(
                "  ! an earlier build was ended while it put its outputs into {}; that is done now{missing}",
                out.display()
            ));
        }
        staging.empty().with_context(what)?;
        Ok(staging)
    }

    /// Where a file of that name is made.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Puts everything that was made into place; `lock` is the name of the lock, if one was made. Gives
    /// names and sizes.
    pub(super) fn finish(self, lock: Option<&str>) -> Result<Vec<(String, u64)>> {
        let what = || format!("putting outputs into {}", self.out.display());
        let mut files = Vec::new();
        for name in NAMES.into_iter().chain(lock) {
            let Ok(file) = File::open(self.path(name)) else {
                continue;
            };
            file.sync_all().with_context(what)?;
            files.push((name.to_owned(), file.metadata().with_context(what)?.len()));
        }
        durable::sync_directory(&self.directory).with_context(what)?;
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        let stale = self.stale(&names);
        let swap = Swap { names, stale };
        let text = serde_json::to_vec(&swap).context("encoding the list of outputs")?;
        durable::write(&self.path(COMPLETE), &text).with_context(what)?;
        self.apply(&swap).with_context(what)?;
        Ok(files)
    }

    /// What an earlier build left under names of ours and `names` does not have.
    fn stale(&self, names: &[String]) -> Vec<String> {
        let lock = self.lock_of_before();
        let known = NAMES.iter().map(|name| (*name).to_owned()).chain(lock);
        known
            .filter(|name| !names.contains(name))
            .filter(|name| self.out.join(name).symlink_metadata().is_ok())
            .collect()
    }

    /// The lock that the build before left. One that lies beside its recipe is the recipe's own.
    fn lock_of_before(&self) -> Option<String> {
        let facts = fs::read(self.out.join("build.json")).ok()?;
        let facts: serde_json::Value = serde_json::from_slice(&facts).ok()?;
        let recipe = facts["recipe"]
            .as_str()
            .filter(|name| !name.contains('/'))?;
        let name = format!("{recipe}.lock");
        let text = fs::read_to_string(self.out.join(&name)).ok()?;
        let is_recipes = self.out.join(format!("{recipe}.toml")).exists();
        (text.starts_with(FIRST_WORDS) && !is_recipes).then_some(name)
    }

    fn interrupted(&self) -> Result<Option<Swap>> {
        let path = self.path(COMPLETE);
        match fs::read(&path) {
            Ok(text) => {
                let swap: Option<Swap> = serde_json::from_slice(&text).ok();
                let named = |name: &String| !name.contains('/');
                let swap = swap.filter(|it| it.names.iter().chain(&it.stale).all(named));
                swap.map(Some).with_context(|| {
                    format!(
                        "{} is not what imager writes; delete that folder",
                        path.display()
                    )
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Renames and removes; what was done already is passed over. Gives the names that are nowhere.
    fn apply(&self, swap: &Swap) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        for name in &swap.names {
            let to = self.out.join(name);
            match fs::rename(self.path(name), &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !to.exists() {
                        missing.push(name.clone());
                    }
                }
                done => done?,
            }
        }
        for name in &swap.stale {
            match fs::remove_file(self.out.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        durable::sync_directory(&self.out)?;
        fs::remove_file(self.path(COMPLETE))?;
        Ok(missing)
    }

    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match path.is_dir() && !path.is_symlink() {
                true => fs::remove_dir_all(path)?,
                false => fs::remove_file(path)?,
            }
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A set that is complete is for whoever opens the folder next.
        if !self.path(COMPLETE).exists() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(out: &Path) -> Staging {
        Staging::open(out, |said| panic!("{said}")).unwrap()
    }

    /// A build that makes these, each with `content`.
    fn build(out: &Path, names: &[&str], content: &str) {
        let staging = open(out);
        for name in names {
            fs::write(staging.path(name), content).unwrap();
        }
        let lock = names.iter().find(|name| name.ends_with(".lock"));
        let files = staging.finish(lock.copied()).unwrap();
        assert_eq!(files.len(), names.len(), "{files:?}");
    }

    /// What is in a folder: name and content.
    fn seen(out: &Path) -> Vec<(String, String)> {
        let mut seen: Vec<_> = fs::read_dir(out)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(&path).unwrap_or_default())
            })
            .collect();
        seen.sort();
        seen
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, content): &(&str, &str)| ((*name).to_owned(), (*content).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn what_a_build_does_not_make_any_more_goes_and_what_is_foreign_stays() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path();
        fs::create_dir_all(out).unwrap();
        fs::write(out.join("notes.txt"), "mine").unwrap();
        fs::write(out.join("disk.raw.old"), "mine").unwrap();
        build(out, &["disk.raw", "disk.raw.zst", "bundle.spb"], "1");
        build(out, &["disk.raw", "bundle.spb"], "2");
        let expected = [
            ("bundle.spb", "2"),
            ("disk.raw", "2"),
            ("disk.raw.old", "mine"),
            ("notes.txt", "mine"),
        ];
        assert_eq!(seen(out), pairs(&expected));
    }

    #[test]
    fn the_lock_of_another_recipe_goes_unless_it_is_that_recipes_own() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path();
        let locked = format!("{FIRST_WORDS} …");
        let before = |recipe: &str, lock: &str| {
            fs::write(
                out.join("build.json"),
                format!("{{\"recipe\":\"{recipe}\"}}"),
            )
            .unwrap();
            fs::write(out.join(format!("{recipe}.lock")), lock).unwrap();
        };
        before("first", &locked);
        build(out, &["build.json", "second.lock"], "{}");
        assert_eq!(
            seen(out),
            pairs(&[("build.json", "{}"), ("second.lock", "{}")])
        );
        before("foreign", "something else");
        before("own", &locked);
        fs::write(out.join("own.toml"), "").unwrap();
        build(out, &["build.json", "second.lock"], "{}");
        assert!(out.join("own.lock").exists() && out.join("foreign.lock").exists());
    }

    #[test]
    fn a_build_that_ends_early_leaves_the_old_set() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path();
        build(out, &["disk.raw", "bundle.spb"], "old");
        let old = seen(out);
        let failed = open(out);
        fs::write(failed.path("disk.raw"), "half").unwrap();
        drop(failed);
        assert_eq!(seen(out), old);
        // Killed, it cannot even tidy up; the next build does.
        fs::create_dir(out.join(DIRECTORY)).unwrap();
        fs::write(out.join(DIRECTORY).join("disk.raw"), "half").unwrap();
        drop(open(out));
        assert_eq!(seen(out), old);
    }

    #[test]
    fn a_swap_is_finished_wherever_it_was_interrupted() {
        let names = ["disk.raw", "bundle.spb", "build.json"];
        for done in 0..=names.len() {
            let out = tempfile::tempdir().unwrap();
            let out = out.path();
            build(out, &["disk.raw", "disk.raw.zst", "build.json"], "old");
            let staging = out.join(DIRECTORY);
            fs::create_dir(&staging).unwrap();
            for (n, name) in names.iter().enumerate() {
                let place = if n < done { out } else { &staging };
                fs::write(place.join(name), "new").unwrap();
            }
            let swap = Swap {
                names: names.map(str::to_owned).to_vec(),
                stale: vec!["disk.raw.zst".to_owned()],
            };
            fs::write(staging.join(COMPLETE), serde_json::to_vec(&swap).unwrap()).unwrap();
            let said = std::cell::RefCell::new(String::new());
            drop(Staging::open(out, |text| said.borrow_mut().push_str(text)).unwrap());
            assert!(said.borrow().contains("that is done now"), "{said:?}");
            let expected = [
                ("build.json", "new"),
                ("bundle.spb", "new"),
                ("disk.raw", "new"),
            ];
            assert_eq!(seen(out), pairs(&expected), "{done} were renamed");
        }
    }

    #[test]
    fn a_list_that_names_other_places_is_refused() {
        let out = tempfile::tempdir().unwrap();
        let staging = out.path().join("out").join(DIRECTORY);
        fs::create_dir_all(&staging).unwrap();
        fs::write(out.path().join("mine"), "mine").unwrap();
        for swap in [r#"{"names":[],"stale":["../mine"]}"#, "not JSON"] {
            fs::write(staging.join(COMPLETE), swap).unwrap();
            let error = Staging::open(&out.path().join("out"), |_| {}).unwrap_err();
            assert!(error.to_string().contains("delete that folder"), "{error}");
        }
        assert!(out.path().join("mine").exists());
    }

    #[test]
    fn what_is_missing_after_an_interruption_is_said() {
        let out = tempfile::tempdir().unwrap();
        let staging = out.path().join(DIRECTORY);
        fs::create_dir(&staging).unwrap();
        let swap = r#"{"names":["disk.raw","uki.efi"],"stale":[]}"#;
        fs::write(staging.join(COMPLETE), swap).unwrap();
        fs::write(staging.join("uki.efi"), "new").unwrap();
        let said = std::cell::RefCell::new(String::new());
        drop(Staging::open(out.path(), |text| said.borrow_mut().push_str(text)).unwrap());
        assert!(
            said.borrow().ends_with("missing of them: disk.raw"),
            "{said:?}"
        );
    }

    #[test]
    fn two_builds_do_not_share_a_folder() {
        let out = tempfile::tempdir().unwrap();
        let first = open(out.path());
        fs::write(first.path("disk.raw"), "first").unwrap();
        let (says, said) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                let staging =
                    Staging::open(out.path(), |text| says.send(text.to_owned()).unwrap()).unwrap();
                fs::write(staging.path("disk.raw"), "second").unwrap();
                staging.finish(None).unwrap();
            });
            let heard = said.recv().unwrap();
            assert!(heard.contains("waiting for another build"), "{heard}");
            first.finish(None).unwrap();
            second.join().unwrap();
        });
        assert_eq!(seen(out.path()), pairs(&[("disk.raw", "second")]));
    }
}
