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
//! one does not make is removed. Where that is interrupted, or one of the names cannot be had (something is
//! mounted there), some outputs are new and some are old, and whoever opens the folder next goes on with it.
//!
//! Only files that a build names are touched, and removed only beside a build.json of imager's. Locks are
//! not: each is of use to its recipe as long as that is there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};

use crate::workshop::{durable, progress};

const DIRECTORY: &str = ".imager-new";
const COMPLETE: &str = "complete.json";

/// What `tool` begins with in the build.json of any version of imager.
const TOOL: &str = "imager ";

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
    /// It cannot be written to or locked, or what was interrupted cannot be finished.
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
            let opened = File::options()
                .read(true)
                .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
                .open(&directory);
            let file = match opened {
                Ok(file) => file,
                // Whoever had it before removed it in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!(
                            "opening {}, which has to be a directory of this user's; delete it, or choose another \
                             folder with --out",
                            directory.display()
                        )
                    });
                }
            };
            let lock = lock(file, || {
                say(&format!(
                    "  … waiting for another build that makes outputs in {}",
                    out.display()
                ));
            });
            let lock = lock.with_context(|| {
                format!(
                    "locking {}: its filesystem may have no locks (flock); choose a folder elsewhere with --out",
                    directory.display()
                )
            })?;
            // Whoever had it before may have removed it in between.
            let locked = lock.metadata().with_context(what)?;
            if fs::symlink_metadata(&directory)
                .is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino()))
            {
                break lock;
            }
        };
        let staging = Self {
            out: out.to_owned(),
            directory,
            _lock: lock,
        };
        if let Some(swap) = staging.interrupted()? {
            let missing = staging.apply(&swap, &say)?;
            let missing = match missing.is_empty() {
                true => String::new(),
                false => format!("; missing of them: {}", missing.join(", ")),
            };
            say(&format!(
                "  ! an earlier build was ended while it put its outputs into {}; that is done now{missing}",
                out.display()
            ));
        }
        staging.empty()?;
        Ok(staging)
    }

    /// Where a file of that name is made.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Puts everything that was made into place; `lock` is the name of the lock, if one was made. Gives
    /// names and sizes.
    ///
    /// # Errors
    /// Before anything is put into place: something was not written, or a directory has the name of an output.
    /// After that: see [`Staging::apply`].
    pub(super) fn finish(self, lock: Option<&str>) -> Result<Vec<(String, u64)>> {
        self.finish_and_say(lock, progress::say)
    }

    fn finish_and_say(self, lock: Option<&str>, say: impl Fn(&str)) -> Result<Vec<(String, u64)>> {
        let what = || format!("putting outputs into {}", self.out.display());
        let mut files = Vec::new();
        for name in NAMES.into_iter().chain(lock) {
            let path = self.path(name);
            let kept = || -> io::Result<u64> {
                let file = File::open(&path)?;
                file.sync_all()?;
                Ok(file.metadata()?.len())
            };
            match kept() {
                Ok(size) => files.push((name.to_owned(), size)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("keeping {}", path.display()));
                }
            }
        }
        durable::sync_directory(&self.directory).with_context(what)?;
        let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
        for name in &names {
            let path = self.out.join(name);
            ensure!(
                !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()),
                "{} is a directory, and an output has that name; move it away, or choose another folder with --out",
                path.display()
            );
        }
        let stale = self.stale(&names);
        let swap = Swap { names, stale };
        let text = serde_json::to_vec(&swap).context("encoding the list of outputs")?;
        durable::write(&self.path(COMPLETE), &text).with_context(what)?;
        self.apply(&swap, &say)?;
        Ok(files)
    }

    /// What an earlier build left under names of ours and `names` does not have. Without its build.json the
    /// files may be anybody's.
    fn stale(&self, names: &[String]) -> Vec<String> {
        if !self.has_build() {
            return Vec::new();
        }
        let is_file = |name: &&str| {
            let meta = self.out.join(name).symlink_metadata();
            meta.is_ok_and(|meta| !meta.is_dir())
        };
        let left = NAMES.into_iter().filter(is_file).map(str::to_owned);
        left.filter(|name| !names.contains(name)).collect()
    }

    /// Whether imager wrote the build.json that is in the folder.
    fn has_build(&self) -> bool {
        let facts = fs::read(self.out.join("build.json")).ok();
        let facts = facts.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
        facts.is_some_and(|facts| {
            let tool = facts["tool"].as_str();
            tool.is_some_and(|tool| tool.starts_with(TOOL))
        })
    }

    fn interrupted(&self) -> Result<Option<Swap>> {
        let path = self.path(COMPLETE);
        match fs::read(&path) {
            Ok(text) => {
                let swap: Option<Swap> = serde_json::from_slice(&text).ok();
                let named = |name: &String| !name.contains('/');
                let ours = |name: &String| NAMES.contains(&&**name);
                let swap =
                    swap.filter(|it| it.names.iter().all(named) && it.stale.iter().all(ours));
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

    /// Renames and removes; what was done already is passed over. `say` hears what is removed. Gives the names
    /// that are nowhere.
    ///
    /// # Errors
    /// A file cannot be renamed or removed. The ones before it are; the next build goes on there.
    fn apply(&self, swap: &Swap, say: &impl Fn(&str)) -> Result<Vec<String>> {
        let half = || {
            format!(
                "putting outputs into {}: some are new by now, some are of an earlier build. Once what follows is \
                 mended, the next build goes on with it; or delete {}, and none of the outputs is to be used",
                self.out.display(),
                self.directory.display()
            )
        };
        let mut missing = Vec::new();
        for name in &swap.names {
            let (from, to) = (self.path(name), self.out.join(name));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !to.exists() {
                        missing.push(name.clone());
                    }
                }
                done => done
                    .with_context(|| format!("renaming {} to {}", from.display(), to.display()))
                    .with_context(half)?,
            }
        }
        for name in &swap.stale {
            let path = self.out.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => {
                    done.with_context(|| format!("removing {}", path.display()))
                        .with_context(half)?;
                    say(&format!(
                        "  - {}: of an earlier build, and not made by this one; removed",
                        path.display()
                    ));
                }
            }
        }
        durable::sync_directory(&self.out)
            .with_context(|| format!("syncing {}", self.out.display()))
            .with_context(half)?;
        let complete = self.path(COMPLETE);
        fs::remove_file(&complete)
            .with_context(|| format!("removing {}", complete.display()))
            .with_context(half)?;
        Ok(missing)
    }

    /// Removes what a build that was killed had made.
    fn empty(&self) -> Result<()> {
        let what = || format!("emptying {}", self.directory.display());
        for entry in fs::read_dir(&self.directory).with_context(what)? {
            let path = entry.with_context(what)?.path();
            match path.is_dir() && !path.is_symlink() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            }
            .with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A set that is complete is for whoever opens the folder next.
        if matches!(self.path(COMPLETE).symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound)
        {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// Locks it, once `wait` was told if somebody else has it.
fn lock(file: File, wait: impl Fn()) -> nix::Result<Flock<File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, Errno::EWOULDBLOCK)) => {
            wait();
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)
        }
        Err((_, errno)) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(out: &Path) -> Staging {
        Staging::open(out, |said| panic!("{said}")).unwrap()
    }

    /// A build that makes these, each with `content`. Gives what it says.
    fn build(out: &Path, names: &[&str], content: &str) -> Vec<String> {
        let staging = open(out);
        for name in names {
            fs::write(staging.path(name), content).unwrap();
        }
        let lock = names.iter().find(|name| name.ends_with(".lock"));
        let said = RefCell::default();
        let files = staging
            .finish_and_say(lock.copied(), |text| remember(&said, text))
            .unwrap();
        assert_eq!(files.len(), names.len(), "{files:?}");
        said.into_inner()
    }

    fn remember(said: &RefCell<Vec<String>>, text: &str) {
        said.borrow_mut().push(text.to_owned());
    }

    /// What imager writes of a build.
    const FACTS: &str = r#"{"tool":"imager 0.0.9","recipe":"first"}"#;

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
        fs::create_dir(out.join("loader.efi")).unwrap();
        fs::write(out.join("first.lock"), "pinned").unwrap();
        build(out, &["disk.raw", "disk.raw.zst", "bundle.spb"], "1");
        fs::write(out.join("build.json"), FACTS).unwrap();
        let said = build(out, &["disk.raw", "bundle.spb", "second.lock"], "2");
        let expected = [
            ("bundle.spb", "2"),
            ("disk.raw", "2"),
            ("disk.raw.old", "mine"),
            ("first.lock", "pinned"),
            ("loader.efi", ""),
            ("notes.txt", "mine"),
            ("second.lock", "2"),
        ];
        assert_eq!(seen(out), pairs(&expected));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("disk.raw.zst") && said[1].contains("build.json"),
            "{said:?}"
        );
    }

    #[test]
    fn nothing_goes_where_no_build_of_ours_was() {
        for facts in [
            None,
            Some("{}"),
            Some("not JSON"),
            Some(r#"{"tool":"another 1"}"#),
        ] {
            let out = tempfile::tempdir().unwrap();
            let out = out.path();
            fs::write(out.join("recovery.spb"), "mine").unwrap();
            if let Some(facts) = facts {
                fs::write(out.join("build.json"), facts).unwrap();
            }
            assert!(build(out, &["disk.raw"], "1").is_empty(), "{facts:?}");
            assert!(out.join("recovery.spb").exists(), "{facts:?}");
            assert_eq!(out.join("build.json").exists(), facts.is_some());
        }
    }

    #[test]
    fn a_directory_with_the_name_of_an_output_is_found_before_anything_is_put_into_place() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path();
        build(out, &["disk.raw"], "old");
        fs::create_dir(out.join("bundle.spb")).unwrap();
        let staging = open(out);
        for name in ["disk.raw", "bundle.spb"] {
            fs::write(staging.path(name), "new").unwrap();
        }
        let error = staging.finish(None).unwrap_err().to_string();
        assert!(
            error.contains("bundle.spb is a directory") && error.contains("--out"),
            "{error}"
        );
        assert_eq!(seen(out), pairs(&[("bundle.spb", ""), ("disk.raw", "old")]));
    }

    #[test]
    fn a_swap_that_cannot_go_on_names_the_file_and_goes_on_once_it_can() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path();
        let staging = out.join(DIRECTORY);
        fs::create_dir_all(&staging).unwrap();
        for name in ["disk.raw", "uki.efi"] {
            fs::write(staging.join(name), "new").unwrap();
        }
        fs::create_dir_all(out.join("uki.efi")).unwrap();
        let swap = r#"{"names":["disk.raw","uki.efi"],"stale":[]}"#;
        fs::write(staging.join(COMPLETE), swap).unwrap();
        for _ in 0..2 {
            let error = format!("{:#}", Staging::open(out, |_| {}).unwrap_err());
            let named = format!("to {}", out.join("uki.efi").display());
            assert!(
                error.contains(&named) && error.contains("goes on"),
                "{error}"
            );
        }
        fs::remove_dir(out.join("uki.efi")).unwrap();
        drop(Staging::open(out, |_| {}).unwrap());
        assert_eq!(seen(out), pairs(&[("disk.raw", "new"), ("uki.efi", "new")]));
    }

    #[test]
    fn what_is_made_and_cannot_be_read_is_not_passed_over() {
        let out = tempfile::tempdir().unwrap();
        let staging = open(out.path());
        symlink("disk.raw", staging.path("disk.raw")).unwrap();
        let error = format!("{:#}", staging.finish(None).unwrap_err());
        assert!(error.contains(".imager-new/disk.raw"), "{error}");
    }

    #[test]
    fn a_link_or_a_file_in_place_of_the_folder_is_an_error_that_names_it() {
        let place = tempfile::tempdir().unwrap();
        let (out, target) = (place.path().join("out"), place.path().join("target"));
        fs::create_dir_all(&out).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("mine"), "mine").unwrap();
        let refused = || {
            let error = Staging::open(&out, |_| {}).unwrap_err().to_string();
            assert!(
                error.contains(DIRECTORY) && error.contains("delete it"),
                "{error}"
            );
            fs::remove_file(out.join(DIRECTORY)).unwrap();
        };
        for to in [&target, &place.path().join("nowhere")] {
            symlink(to, out.join(DIRECTORY)).unwrap();
            refused();
        }
        fs::write(out.join(DIRECTORY), "").unwrap();
        refused();
        assert!(target.join("mine").exists());
        drop(open(&out));
    }

    #[test]
    fn a_lock_that_cannot_be_had_at_all_is_not_waited_for() {
        // A descriptor that is for its path alone has no locks, as files of some filesystems.
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_PATH.bits())
            .open("/")
            .unwrap();
        let result = lock(file, || panic!("waited"));
        assert_eq!(result.unwrap_err(), Errno::EBADF);
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
            let said = RefCell::new(String::new());
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
        let elsewhere = r#"{"names":["../mine"],"stale":[]}"#;
        let foreign = r#"{"names":[],"stale":["notes.txt"]}"#;
        for swap in [elsewhere, foreign, "not JSON"] {
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
        let said = RefCell::new(String::new());
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
