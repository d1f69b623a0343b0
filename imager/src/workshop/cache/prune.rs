//! Making the cache smaller, by age and by size, beside builds that use it.
//!
//! Whatever a build finds in the cache it touches first, no earlier than when it opened the cache; and a
//! build that runs holds a lock on a file of `users/`. So what is older than the oldest build that runs is
//! of use to none of them yet, and only that is removed. Finding and removing cannot overlap: finding holds
//! the gate together with other finders, each removal alone.
//!
//! What is removed first leaves its name by one rename, so that nobody meets half of it. What cannot leave it
//! stays, and the report names it; without the gate nothing is removed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::{Cache, Usage, disk_usage, to_lock};

/// Directories of tools, each of use as a whole: they are touched when they are asked for.
const OF_TOOLS: [&str; 4] = ["apt", "go", "kvm", "programs"];

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Everything, directories of other programs among it.
    Everything,
    /// What was not used for that long, then what was not used for longest until no more than that many
    /// bytes are left; directories of other programs do not count.
    Least {
        unused_for: Option<Duration>,
        keep: Option<u64>,
    },
}

/// What went, or would have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// By kind.
    pub freed: Vec<Usage>,
    pub freed_bytes: u64,
    /// What the cache holds after it.
    pub left_bytes: u64,
    /// Builds were running, and what they may use was left to them.
    pub beside_builds: bool,
    /// What was to go and could not, such as a directory that something is mounted on: its path, and why.
    pub kept: Vec<String>,
}

/// What became of an item.
#[derive(Debug)]
enum Removal {
    Done,
    /// It is in use.
    Left,
    /// Somebody else has removed it.
    Vanished,
    Failed(io::Error),
}

/// Something that goes as a whole.
#[derive(Debug)]
struct Item {
    area: String,
    path: PathBuf,
    /// When it was last of use; none: nobody notes that.
    used: Option<SystemTime>,
    bytes: u64,
}

impl Cache {
    /// Removes what `limits` say, but nothing that a running build may use.
    ///
    /// # Errors
    /// The cache cannot be read or written, or its locks do not work: then nothing is removed.
    pub fn prune(&self, limits: Limits, dry_run: bool) -> Result<Pruned> {
        let mut items = self.items()?;
        items.sort_by_key(|item| item.used);
        let mut total: u64 = items.iter().map(|item| item.bytes).sum();
        let foreign = items.iter().filter(|item| item.used.is_none());
        let foreign: u64 = foreign.map(|item| item.bytes).sum();
        let builds = self
            .oldest_other_user()
            .with_context(|| format!("cannot see who uses {}", self.root.display()))?;
        let mut left = total;
        let mut freed = BTreeMap::<String, Usage>::new();
        let mut kept = Vec::new();
        let scratch = self.scratch()?;
        for (n, item) in items.iter().enumerate() {
            let due = match (limits, item.used) {
                (Limits::Everything, _) => true,
                (Limits::Least { .. }, None) => false,
                (Limits::Least { unused_for, keep }, Some(used)) => {
                    let unused = SystemTime::now().duration_since(used).unwrap_or_default();
                    unused_for.is_some_and(|limit| unused > limit)
                        || keep.is_some_and(|keep| left > keep.saturating_add(foreign))
                }
            };
            if !due {
                continue;
            }
            match self.remove(item, builds, &scratch.path().join(n.to_string()), dry_run)? {
                Removal::Done => left -= item.bytes,
                Removal::Left => continue,
                Removal::Vanished => {
                    total -= item.bytes;
                    left -= item.bytes;
                    continue;
                }
                Removal::Failed(error) => {
                    kept.push(format!("{}: {error}", item.path.display()));
                    continue;
                }
            }
            let of_area = freed.entry(item.area.clone()).or_insert_with(|| Usage {
                name: item.area.clone(),
                entries: 0,
                bytes: 0,
            });
            of_area.entries += 1;
            of_area.bytes += item.bytes;
        }
        Ok(Pruned {
            freed: freed.into_values().collect(),
            freed_bytes: total - left,
            left_bytes: left,
            beside_builds: builds.is_some(),
            kept,
        })
    }

    fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (area, directory) in self.areas()? {
            let single = area.starts_with("steps/") || ["blobs", "frames"].contains(&&*area);
            if !single {
                let used = OF_TOOLS.contains(&&*area).then(|| modified(&directory));
                items.push(Item {
                    bytes: disk_usage(&directory),
                    used: used.flatten(),
                    path: directory,
                    area,
                });
                continue;
            }
            for entry in fs::read_dir(&directory)?.filter_map(Result::ok) {
                let path = entry.path();
                if path
                    .extension()
                    .is_some_and(|extension| extension == "seal")
                {
                    continue;
                }
                let used = self.used(&area, &path);
                items.push(Item {
                    area: area.clone(),
                    bytes: disk_usage(&path),
                    used: Some(used.unwrap_or(SystemTime::UNIX_EPOCH)),
                    path,
                });
            }
        }
        Ok(items)
    }

    /// When an entry was last of use: a step's seal says it.
    fn used(&self, area: &str, path: &Path) -> Option<SystemTime> {
        match area.starts_with("steps/") {
            true => modified(&path.with_extension("seal")).or_else(|| modified(path)),
            false => modified(path),
        }
    }

    /// Moves an item to `to`, unless it is in use, or was used since it was looked at.
    fn remove(
        &self,
        item: &Item,
        builds: Option<SystemTime>,
        to: &Path,
        dry_run: bool,
    ) -> Result<Removal> {
        let _gate = self.gate(FlockArg::LockExclusive)?;
        let used = match item.used {
            Some(_) => self.used(&item.area, &item.path),
            None => None,
        };
        if used > item.used || builds.is_some_and(|since| used.is_none_or(|used| used >= since)) {
            return Ok(Removal::Left);
        }
        // Somebody may be making it.
        let mut lock = None;
        if let Some(kind) = item.area.strip_prefix("steps/") {
            let name = item.path.file_name().unwrap_or_default().to_string_lossy();
            let path = self.root.join("locks").join(format!("{kind}-{name}"));
            let file = match to_lock(&path, !dry_run) {
                Ok(file) => Some(file),
                Err(error) if dry_run && error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Ok(Removal::Failed(error)),
            };
            if let Some(file) = file {
                match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                    Ok(held) => lock = Some((path, held)),
                    Err((_, Errno::EWOULDBLOCK)) => return Ok(Removal::Left),
                    Err((_, errno)) => return Ok(Removal::Failed(errno.into())),
                }
            }
        }
        if dry_run {
            return Ok(match item.path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Removal::Vanished,
                _ => Removal::Done,
            });
        }
        let removal = match fs::rename(&item.path, to) {
            Ok(()) => Removal::Done,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Removal::Vanished,
            Err(error) => Removal::Failed(error),
        };
        if let Some((path, _held)) = &lock {
            // Without its directory a seal is of no use, and is no entry.
            if !matches!(removal, Removal::Failed(_)) {
                let _ = fs::remove_file(item.path.with_extension("seal"));
            }
            let _ = fs::remove_file(path);
        }
        Ok(removal)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::{Key, KeyBuilder, hash_bytes};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn everything(cache: &Cache) -> Pruned {
        cache.prune(Limits::Everything, false).unwrap()
    }

    fn open() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        (directory, cache)
    }

    fn ago(path: &Path, hours: u32) {
        let time = SystemTime::now() - HOUR * hours;
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    /// A step of 100 kB, last used that long ago.
    fn step(cache: &Cache, name: &str, hours: u32) -> Key {
        let key = KeyBuilder::new(name).finish();
        let scratch = cache.scratch().unwrap();
        fs::write(scratch.path().join("made"), vec![1; 100_000]).unwrap();
        let entry = cache.commit("test", &key, scratch).unwrap();
        ago(&entry.with_extension("seal"), hours);
        key
    }

    fn file(cache: &Cache, area: &str, content: &str, hours: u32) -> PathBuf {
        let name = hash_bytes(content.as_bytes());
        let path = cache.directory(area).unwrap().join(name);
        fs::write(&path, content).unwrap();
        ago(&path, hours);
        path
    }

    fn there(cache: &Cache, key: &Key) -> bool {
        cache.entry("test", key).exists()
    }

    #[test]
    fn what_was_not_used_for_long_goes_whatever_it_is() {
        let (_directory, cache) = open();
        let (old, new) = (step(&cache, "old", 50), step(&cache, "new", 1));
        let frames = [
            file(&cache, "frames", "a", 50),
            file(&cache, "frames", "b", 1),
        ];
        let blobs = [
            file(&cache, "blobs", "a", 50),
            file(&cache, "blobs", "b", 1),
        ];
        fs::write(cache.directory("apt").unwrap().join("x"), "x").unwrap();
        ago(&cache.path().join("apt"), 50);
        fs::create_dir(cache.path().join("foreign")).unwrap();
        ago(&cache.path().join("foreign"), 50);
        let limits = Limits::Least {
            unused_for: Some(HOUR * 24),
            keep: None,
        };
        let seen = cache.prune(limits, true).unwrap();
        assert!(there(&cache, &old) && frames[0].exists(), "only looked at");
        let pruned = cache.prune(limits, false).unwrap();
        assert_eq!(pruned, seen);
        let areas: Vec<_> = pruned.freed.iter().map(|area| &*area.name).collect();
        assert_eq!(areas, ["apt", "blobs", "frames", "steps/test"]);
        assert!(pruned.freed_bytes > 100_000 && pruned.left_bytes > 100_000);
        assert!(!there(&cache, &old) && there(&cache, &new));
        assert!(!frames[0].exists() && frames[1].exists());
        assert!(!blobs[0].exists() && blobs[1].exists());
        assert!(!cache.path().join("apt").exists() && cache.path().join("foreign").exists());
    }

    #[test]
    fn by_size_what_was_used_last_stays() {
        let (_directory, cache) = open();
        let keys = [3, 1, 2].map(|hours| step(&cache, &hours.to_string(), hours));
        let foreign = cache.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("large"), vec![1; 500_000]).unwrap();
        let limits = Limits::Least {
            unused_for: None,
            keep: Some(250_000),
        };
        cache.prune(limits, false).unwrap();
        assert_eq!(keys.map(|key| there(&cache, &key)), [false, true, true]);
    }

    #[test]
    fn beside_a_build_only_what_it_has_no_use_for_goes() {
        let (directory, cache) = open();
        let (used, unused) = (step(&cache, "used", 5), step(&cache, "unused", 5));
        let blob = hash_bytes(b"used");
        file(&cache, "blobs", "used", 5);
        let build = Cache::open(Some(directory.path())).unwrap();
        build.directory("programs").unwrap();
        fs::create_dir(cache.path().join("foreign")).unwrap();
        assert!(build.find("test", &used).is_some());
        assert!(build.blob(&blob).is_some());
        let pruned = everything(&cache);
        assert!(pruned.beside_builds);
        assert!(there(&cache, &used) && !there(&cache, &unused));
        assert!(build.blob(&blob).is_some());
        assert!(cache.path().join("programs").exists() && cache.path().join("foreign").exists());
        drop(build);
        let pruned = everything(&cache);
        assert!(
            !pruned.beside_builds && pruned.left_bytes == 0,
            "{pruned:?}"
        );
        assert!(!there(&cache, &used) && !cache.path().join("foreign").exists());
    }

    #[test]
    fn what_is_being_made_stays() {
        let (_directory, cache) = open();
        let key = step(&cache, "made", 5);
        let lock = cache.lock("test", &key).unwrap();
        everything(&cache);
        assert!(there(&cache, &key));
        drop(lock);
        everything(&cache);
        assert!(!there(&cache, &key));
        // The lock's file went with it; a new one locks as well.
        let _lock = cache.lock("test", &key).unwrap();
    }

    #[test]
    fn a_build_that_was_killed_counts_no_more() {
        let (_directory, cache) = open();
        fs::write(cache.path().join("users/gone"), "").unwrap();
        assert!(!everything(&cache).beside_builds);
    }

    #[test]
    fn a_user_whose_lock_cannot_be_told_counts_as_there() {
        let (_directory, cache) = open();
        // Not even root can open it.
        std::os::unix::fs::symlink("odd", cache.path().join("users/odd")).unwrap();
        let key = step(&cache, "old", 50);
        assert!(everything(&cache).beside_builds);
        assert!(there(&cache, &key));
    }

    #[test]
    fn a_look_leaves_no_locks_behind() {
        let (_directory, cache) = open();
        step(&cache, "old", 50);
        let locks = || fs::read_dir(cache.path().join("locks")).unwrap().count();
        let before = locks();
        let seen = cache.prune(Limits::Everything, true).unwrap();
        assert!(seen.freed_bytes > 100_000);
        assert_eq!(locks(), before);
    }

    #[test]
    fn what_cannot_go_is_named_and_the_rest_goes() {
        let (directory, cache) = open();
        let (first, second) = (step(&cache, "first", 5), step(&cache, "second", 4));
        let entry = cache.entry("test", &first);
        let item = |path: PathBuf| Item {
            area: "steps/test".to_owned(),
            used: cache.used("steps/test", &path),
            path,
            bytes: 0,
        };
        // A directory does not take the place of a file: as good a reason as a mount.
        let occupied = directory.path().join("occupied");
        fs::write(&occupied, "").unwrap();
        let failed = cache.remove(&item(entry.clone()), None, &occupied, false);
        assert!(matches!(failed.unwrap(), Removal::Failed(_)));
        assert!(
            cache.find("test", &first).is_some(),
            "as whole as it was before"
        );
        let gone = cache.entry("test", &KeyBuilder::new("gone").finish());
        let vanished = cache.remove(&item(gone), None, &directory.path().join("to"), false);
        assert!(matches!(vanished.unwrap(), Removal::Vanished));
        // Among many: a lock that cannot be had.
        ago(&entry.with_extension("seal"), 5);
        let lock = cache.path().join(format!("locks/test-{first}"));
        std::os::unix::fs::symlink(lock.file_name().unwrap(), &lock).unwrap();
        let pruned = everything(&cache);
        assert_eq!(pruned.kept.len(), 1, "{pruned:?}");
        assert!(pruned.kept[0].contains(&first.to_string()), "{pruned:?}");
        assert!(there(&cache, &first) && !there(&cache, &second));
    }
}
