//! The cache: everything that was downloaded or made once and need not be again.
//!
//! ```text
//! $XDG_CACHE_HOME/sternpost/
//!   blobs/SHA256              downloads; what does not hash to its name is removed and fetched again
//!   steps/KIND/KEY/           what a step made; KEY hashes everything that went in
//!   steps/KIND/KEY.seal       what that directory consisted of when it was finished, digests of its files
//!   frames/ZSTD-LEVEL-SHA256.zst  compressed chunks of bundles; used only if they unpack to that
//!   tmp/XXXXXX/               in the making; locked by whoever makes it
//!   locks/KIND-KEY            so that two builds do not make the same thing twice
//!   locks/gate                between those who find and those who remove, see [`prune`]
//!   users/XXXXXX              whoever has the cache open, locked by him; its time says since when
//!   cargo/, go/, …            directories of tools that keep a cache themselves
//! ```
//!
//! An entry appears by one rename, after its content is on the disk, and counts only with a seal
//! that agrees with it; what is used is checked by its digest each time. So a build, or a deletion
//! of the cache, may be killed at any point: what is half there is made again. What lies in `tmp` with
//! nobody's lock on it is removed by whoever opens the cache next.
//!
//! Locks are flock's. On NFS those of files are open for reading and writing, as its server asks, and hold
//! between hosts; those of directories, in `tmp`, hold on one host alone.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use crate::workshop::{durable, patience, progress};

pub mod prune;
mod seal;

/// Clones count as one user.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    user: Arc<User>,
}

/// Whoever has the cache open, for as long as it lives; see [`prune`].
#[derive(Debug)]
struct User {
    path: PathBuf,
    since: SystemTime,
    lock: Flock<File>,
}

impl User {
    fn register(root: &Path) -> Result<Self> {
        let what = || format!("cannot write to {}", root.display());
        // Locked before it can be seen: what is there and not locked is nobody's.
        let file = durable::create(&root.join("tmp")).with_context(what)?;
        let lock = Flock::lock(file.reopen().with_context(what)?, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(what)?;
        let name = file.path().file_name().unwrap_or_default().to_owned();
        let path = root.join("users").join(name);
        file.persist(&path).with_context(what)?;
        Ok(Self {
            since: lock
                .metadata()
                .and_then(|meta| meta.modified())
                .with_context(what)?,
            path,
            lock,
        })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Cache {
    /// Opens (and creates) the cache: `directory`, else `$STERNPOST_CACHE`, else
    /// `$XDG_CACHE_HOME/sternpost`, else `~/.cache/sternpost`.
    pub fn open(directory: Option<&Path>) -> Result<Self> {
        let root = match directory {
            Some(directory) => directory.to_owned(),
            None => default_directory()?,
        };
        let cannot = || {
            format!(
                "cannot use {} as the cache; choose another place with --cache or STERNPOST_CACHE",
                root.display()
            )
        };
        for name in ["blobs", "steps", "tmp", "locks", "users"] {
            fs::create_dir_all(root.join(name)).with_context(cannot)?;
        }
        let root = root.canonicalize().with_context(cannot)?;
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(
                &tag,
                "Signature: 8a477f597d28d172789f06886806bc55\n# Made by imager; may be deleted.\n",
            )
            .with_context(|| format!("cannot write {}", tag.display()))?;
        }
        let user = Arc::new(User::register(&root)?);
        let cache = Self { root, user };
        // Who could not hold it would find nothing.
        drop(cache.gate(FlockArg::LockShared).with_context(cannot)?);
        cache.sweep();
        Ok(cache)
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// A directory for a tool that keeps a cache itself (cargo, Go): `NAME/`, created.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        self.claim(&path);
        Ok(path)
    }

    /// Whether it is there, noted as of use now, and stays while this program runs. What is there and cannot
    /// be noted (it is another user's) might go at any time, and does not count.
    pub fn claim(&self, path: &Path) -> bool {
        let Ok(_gate) = self.gate(FlockArg::LockShared) else {
            return false;
        };
        // A clock that was set back must not make it look older than this program.
        let now = SystemTime::now().max(self.user.since);
        let Ok(file) = File::open(path) else {
            return false;
        };
        file.set_modified(now).is_ok()
    }

    /// Counts as in use until the program that this one becomes by `exec` ends.
    pub fn outlive_exec(&self) -> Result<()> {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        fcntl(&*self.user.lock, FcntlArg::F_SETFD(FdFlag::empty()))
            .context("keeping the cache in use")?;
        Ok(())
    }

    /// An empty directory in the cache, removed when dropped.
    pub fn scratch(&self) -> Result<Scratch> {
        let parent = self.directory("tmp")?;
        let directory = tempfile::Builder::new()
            .prefix("")
            .tempdir_in(&parent)
            .with_context(|| format!("cannot create a directory in {}", parent.display()))?;
        // A mode of 0700 would hide it from the users that tools run as.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let lock = Flock::lock(
            File::open(directory.path())?,
            FlockArg::LockExclusiveNonblock,
        )
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("cannot lock {}", directory.path().display()))?;
        Ok(Scratch {
            directory: Some(directory),
            _lock: lock,
        })
    }

    /// The finished directory of `key`, if it is there and whole. Reads the files at its top.
    pub fn find(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        let entry = self.entry(kind, key);
        if !self.claim(&self.seal(kind, key)) {
            return None;
        }
        let seal = fs::read_to_string(self.seal(kind, key)).ok()?;
        seal::agrees(&seal, &entry).then_some(entry)
    }

    /// Waits until nobody else makes `key`; it is ours until the lock is dropped. Blocks.
    pub fn lock(&self, kind: &str, key: &Key) -> Result<EntryLock> {
        let path = self.directory("locks")?.join(format!("{kind}-{key}"));
        loop {
            let lock = self.flock(&path, FlockArg::LockExclusive)?;
            // Whoever removed the entry removed the lock that was waited for.
            let locked = lock.metadata()?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == locked) {
                return Ok(EntryLock { _lock: lock });
            }
        }
    }

    /// Held together by those who find something, alone by who removes something.
    fn gate(&self, how: FlockArg) -> Result<Flock<File>> {
        self.flock(&self.root.join("locks/gate"), how)
    }

    fn flock(&self, path: &Path, how: FlockArg) -> Result<Flock<File>> {
        let file =
            to_lock(path, true).with_context(|| format!("cannot open {}", path.display()))?;
        let at_once = match how {
            FlockArg::LockShared => FlockArg::LockSharedNonblock,
            _ => FlockArg::LockExclusiveNonblock,
        };
        let locked = match Flock::lock(file, at_once) {
            Err((file, Errno::EWOULDBLOCK)) => {
                let word = format!(
                    "  … waiting for another build that uses this cache and has locked {}",
                    path.display()
                );
                let say = move || progress::say(&word);
                patience::wait(patience::PATIENCE, say, || Flock::lock(file, how))
            }
            done => done,
        };
        locked
            .map_err(|(_, errno)| errno)
            .with_context(|| {
                format!(
                    "cannot lock {}: its filesystem may have no locks (flock); choose another place with --cache or \
                     STERNPOST_CACHE",
                    path.display()
                )
            })
    }

    /// Makes what is in `scratch` the entry of `key`. The caller holds the entry's lock.
    pub fn commit(&self, kind: &str, key: &Key, scratch: Scratch) -> Result<PathBuf> {
        let entry = self.entry(kind, key);
        let seal_path = self.seal(kind, key);
        fs::create_dir_all(entry.parent().unwrap_or(&self.root))?;
        let seal = seal::make(scratch.path())?;
        flush(scratch.path())?;
        let _ = fs::remove_file(&seal_path);
        self.discard(&entry)?;
        fs::rename(scratch.path(), &entry)
            .with_context(|| format!("cannot move a finished step to {}", entry.display()))?;
        scratch.keep();
        let cannot = || format!("cannot write {}", seal_path.display());
        let mut file = durable::create(&self.directory("tmp")?).with_context(cannot)?;
        file.write_all(seal.as_bytes()).with_context(cannot)?;
        durable::persist(file, &seal_path).with_context(cannot)?;
        Ok(entry)
    }

    /// Removes an entry that turned out to be of no use (a tools tree that does not run, say).
    pub fn forget(&self, kind: &str, key: &Key) -> Result<()> {
        match fs::remove_file(self.seal(kind, key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.discard(&self.entry(kind, key))
    }

    /// Where the blob of that SHA-256 is, or would be.
    pub fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(sha256)
    }

    /// The blob of that SHA-256, if it is there and whole. Reads it all.
    pub fn blob(&self, sha256: &str) -> Option<PathBuf> {
        let path = self.blob_path(sha256);
        if !self.claim(&path) {
            return None;
        }
        match hash_file(&path) {
            Ok(found) if found == sha256 => Some(path),
            Ok(_) => {
                let _ = fs::remove_file(&path);
                None
            }
            Err(_) => None,
        }
    }

    /// A new file on its way to be a blob.
    pub fn new_blob(&self) -> Result<tempfile::NamedTempFile> {
        durable::create(&self.directory("tmp")?).context("cannot create a file in the cache")
    }

    /// Makes a file of [`Cache::new_blob`] the blob `sha256`; the caller has hashed it.
    pub fn commit_blob(&self, sha256: &str, file: tempfile::NamedTempFile) -> Result<PathBuf> {
        let path = self.blob_path(sha256);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        // Tools read it as users of their own (apt's), whatever the umask is.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))
            .with_context(|| format!("cannot make {} readable", file.path().display()))?;
        durable::persist(file, &path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// What is in the cache: one line a kind, with the number of entries and bytes on the disk.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let mut all = Vec::new();
        for (name, path) in self.areas()? {
            let entries = fs::read_dir(&path)?
                .filter_map(Result::ok)
                .filter(|e| !e.file_name().to_string_lossy().ends_with(".seal"))
                .count() as u64;
            all.push(Usage {
                name,
                entries,
                bytes: disk_usage(&path),
            });
        }
        Ok(all)
    }

    /// The kinds of entries: name and directory.
    fn areas(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut areas = Vec::new();
        for entry in fs::read_dir(&self.root)?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !entry.path().is_dir() || ["tmp", "locks", "users"].contains(&name.as_str()) {
                continue;
            }
            if name == "steps" {
                for kind in fs::read_dir(entry.path())?.filter_map(Result::ok) {
                    let kind_name = kind.file_name().to_string_lossy().into_owned();
                    areas.push((format!("steps/{kind_name}"), kind.path()));
                }
            } else {
                areas.push((name, entry.path()));
            }
        }
        areas.sort();
        Ok(areas)
    }

    fn entry(&self, kind: &str, key: &Key) -> PathBuf {
        self.root.join("steps").join(kind).join(&key.0)
    }

    fn seal(&self, kind: &str, key: &Key) -> PathBuf {
        self.entry(kind, key).with_extension("seal")
    }

    /// Removes a directory: first out of the way, so that nobody meets half of it.
    fn discard(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let mut moved = fs::rename(path, scratch.path().join("discarded"));
        if matches!(&moved, Err(error) if error.kind() == io::ErrorKind::PermissionDenied) {
            // Another user's directory leaves its name, but not the directory that it is in.
            let unique = scratch.path().file_name().unwrap_or_default();
            let mut name = path.as_os_str().to_owned();
            name.push("-");
            name.push(unique);
            moved = fs::rename(path, name);
        }
        moved.with_context(|| format!("cannot remove {}", path.display()))
    }

    /// When the first of those who have the cache open, but for this one, opened it. Forgets who is gone; of
    /// whom that cannot be told counts as there.
    fn oldest_other_user(&self) -> io::Result<Option<SystemTime>> {
        let mut oldest: Option<SystemTime> = None;
        for entry in fs::read_dir(self.root.join("users"))? {
            let path = entry?.path();
            if path == self.user.path || !is_in_use(&path) {
                continue;
            }
            let since = path.metadata().and_then(|meta| meta.modified());
            let since = match since {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                since => since.unwrap_or(SystemTime::UNIX_EPOCH),
            };
            oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
        }
        Ok(oldest)
    }

    /// Removes what earlier builds left behind in `users` and `tmp`.
    fn sweep(&self) {
        // Whoever needs to know asks again.
        let _ = self.oldest_other_user();
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else {
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let young = path
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|t| t.elapsed().unwrap_or_default() < Duration::from_secs(60));
            let Ok(file) = to_lock(&path, false) else {
                continue;
            };
            // Between its creation and its lock a directory is young.
            if young || Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err() {
                continue;
            }
            let _ = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else if path.metadata().is_ok_and(|m| {
                m.modified()
                    .is_ok_and(|t| t.elapsed().unwrap_or_default() > Duration::from_secs(86400))
            }) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
        }
    }
}

/// Whether somebody holds the file of a user; removes it if not.
fn is_in_use(path: &Path) -> bool {
    let locked = to_lock(path, false)
        .map(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno));
    match locked {
        Ok(Ok(_lock)) => {
            let _ = fs::remove_file(path);
            false
        }
        Ok(Err(_)) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Opens what is to be locked: for reading and writing, without which NFS has no lock of either kind. What is
/// another user's, or a directory, can be locked in other filesystems as well when it is open for reading.
fn to_lock(path: &Path, create: bool) -> io::Result<File> {
    let both = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path);
    match both {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory
            ) =>
        {
            File::open(path)
        }
        done => done,
    }
}

/// One kind of thing in the cache, as `imager cache` lists it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Its folder, relative to the cache.
    pub name: String,
    pub entries: u64,
    /// How much of the disk they take.
    pub bytes: u64,
}

/// A directory in the making, see [`Cache::scratch`].
#[derive(Debug)]
pub struct Scratch {
    directory: Option<tempfile::TempDir>,
    _lock: Flock<File>,
}

impl Scratch {
    pub fn path(&self) -> &Path {
        self.directory
            .as_ref()
            .map_or(Path::new(""), tempfile::TempDir::path)
    }

    fn keep(mut self) {
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
    }
}

/// Held while an entry is being made, see [`Cache::lock`].
#[derive(Debug)]
pub struct EntryLock {
    _lock: Flock<File>,
}

/// The hash of everything that goes into a step; equal keys mean equal results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects what a [`Key`] is made of. Every part is hashed with its length, so that parts
/// cannot run into each other.
#[derive(Clone)]
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// `kind` names the step and its version: raise the version when the step's code changes
    /// what it makes.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).value("kind", kind)
    }

    pub fn value(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds the content of a file (hashed), not its path.
    pub fn file(self, name: &str, path: &Path) -> Result<Self> {
        let hash = hash_file(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.value(name, hash))
    }

    pub fn finish(self) -> Key {
        Key(hex::encode(self.0.finalize()))
    }
}

/// Whether `text` can name a blob: a SHA-256 in lower-case hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 of a file, hexadecimal.
pub fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// SHA-256 of bytes, hexadecimal.
pub fn hash_bytes(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn default_directory() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = set("STERNPOST_CACHE") {
        return Ok(path);
    }
    if let Some(path) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Ok(path.join("sternpost"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".cache/sternpost")),
        None => bail!(
            "no place for the cache: none of STERNPOST_CACHE, XDG_CACHE_HOME and HOME is set; use --cache"
        ),
    }
}

/// Puts a directory's content on the disk: file by file, or, when there are many, the whole
/// file system.
fn flush(root: &Path) -> Result<()> {
    let files: Vec<_> = fs::read_dir(root)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    if files.iter().all(|path| path.is_file()) {
        for path in files {
            File::open(&path)?.sync_data()?;
        }
    } else {
        nix::unistd::syncfs(File::open(root)?)?;
    }
    Ok(())
}

fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = path.symlink_metadata() else {
        return 0;
    };
    let inside: u64 = if meta.is_dir() {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .map(|entry| disk_usage(&entry.path()))
            .sum()
    } else {
        0
    };
    inside + meta.blocks() * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, Cache, Key) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let key = KeyBuilder::new("test-1").value("a", "b").finish();
        (directory, cache, key)
    }

    fn put(cache: &Cache, key: &Key) -> PathBuf {
        let scratch = cache.scratch().unwrap();
        fs::create_dir(scratch.path().join("tree")).unwrap();
        fs::write(scratch.path().join("tree/inner"), "inner").unwrap();
        fs::write(scratch.path().join("outer"), "outer").unwrap();
        cache.commit("test", key, scratch).unwrap()
    }

    #[test]
    fn a_finished_entry_is_found() {
        let (_directory, cache, key) = fixture();
        assert_eq!(cache.find("test", &key), None);
        let path = put(&cache, &key);
        assert_eq!(cache.find("test", &key), Some(path.clone()));
        assert_eq!(fs::read(path.join("outer")).unwrap(), b"outer");
    }

    #[test]
    fn an_entry_that_is_half_deleted_is_not_found_and_can_be_made_again() {
        for victim in ["tree/inner", "outer"] {
            let (_directory, cache, key) = fixture();
            let path = put(&cache, &key);
            fs::remove_file(path.join(victim)).unwrap();
            assert_eq!(cache.find("test", &key), None, "{victim}");
            put(&cache, &key);
            assert!(cache.find("test", &key).is_some());
        }
    }

    #[test]
    fn a_file_that_changed_is_noticed_whatever_its_size() {
        for changed in ["out", "", "OUTER"] {
            let (_directory, cache, key) = fixture();
            let path = put(&cache, &key);
            fs::write(path.join("outer"), changed).unwrap();
            assert_eq!(cache.find("test", &key), None, "{changed:?}");
        }
    }

    #[test]
    fn an_entry_without_its_seal_is_not_found() {
        let (_directory, cache, key) = fixture();
        let path = put(&cache, &key);
        fs::remove_file(path.with_extension("seal")).unwrap();
        assert_eq!(cache.find("test", &key), None);
    }

    #[test]
    fn a_damaged_blob_is_removed() {
        let (_directory, cache, _) = fixture();
        let sha256 = hash_bytes(b"content");
        fs::write(cache.blob_path(&sha256), "contend").unwrap();
        assert_eq!(cache.blob(&sha256), None);
        assert!(!cache.blob_path(&sha256).exists());
        fs::write(cache.blob_path(&sha256), "content").unwrap();
        assert!(cache.blob(&sha256).is_some());
    }

    #[test]
    fn a_blob_is_for_every_user_to_read_whatever_the_umask() {
        let (_directory, cache, _) = fixture();
        let file = cache.new_blob().unwrap();
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        let path = cache.commit_blob(&hash_bytes(b""), file).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn locks_of_files_are_open_for_reading_and_writing() {
        let (directory, cache, _) = fixture();
        for how in [FlockArg::LockShared, FlockArg::LockExclusive] {
            let gate = cache.gate(how).unwrap();
            let flags = nix::fcntl::fcntl(&*gate, nix::fcntl::FcntlArg::F_GETFL).unwrap();
            assert_eq!(flags & nix::libc::O_ACCMODE, nix::libc::O_RDWR);
        }
        to_lock(directory.path(), false).unwrap();
        let missing = to_lock(&directory.path().join("missing"), false).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn without_the_gate_nothing_is_found_and_nothing_removed() {
        let (directory, cache, key) = fixture();
        let entry = put(&cache, &key);
        let gate = cache.path().join("locks/gate");
        fs::remove_file(&gate).unwrap();
        // What cannot be opened to be locked, even by root.
        std::os::unix::fs::symlink("gate", &gate).unwrap();
        assert_eq!(cache.find("test", &key), None);
        assert!(!cache.claim(&entry));
        assert!(cache.prune(prune::Limits::Everything, false).is_err());
        assert!(entry.with_extension("seal").exists() && entry.join("outer").exists());
        let error = Cache::open(Some(directory.path())).unwrap_err();
        assert!(format!("{error:#}").contains("locks/gate"), "{error:#}");
        assert!(error.to_string().contains("--cache"), "{error}");
    }

    #[test]
    fn what_cannot_be_noted_as_in_use_does_not_count() {
        let (_directory, cache, _) = fixture();
        // Root can note everything.
        if !nix::unistd::geteuid().is_root() {
            assert!(Path::new("/").exists() && !cache.claim(Path::new("/")));
        }
        assert!(cache.claim(cache.path()));
    }

    #[test]
    fn parts_of_a_key_cannot_run_into_each_other() {
        let one = KeyBuilder::new("k").value("ab", "c").finish();
        let two = KeyBuilder::new("k").value("a", "bc").finish();
        assert_ne!(one, two);
    }
}
