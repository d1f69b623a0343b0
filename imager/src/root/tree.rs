//! A file tree as a value: read from tar archives, changed, written as one tar archive.
//!
//! Roots are never unpacked to disk: owners, modes and capabilities need no privileges this way,
//! and what is written is in one order with one time, whatever was read. File contents stay where
//! they are (an archive, a file of the host) until the tree is written.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

/// Symlinks into /usr that every root of a merged /usr has at its top.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Directories that are mounted over at every start.
pub(crate) const VOLATILE: [&str; 6] = ["dev", "proc", "run", "state", "sys", "tmp"];

/// How many links a path may lead through, as for Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    File(Bytes),
    Symlink(String),
}

/// Where the content of a file is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bytes {
    Memory(Arc<[u8]>),
    /// Part of a file: path, offset, length.
    Part(Arc<Path>, u64, u64),
}

impl Bytes {
    /// A whole file of the host.
    pub fn of_file(path: &Path) -> Result<Self> {
        let length = path
            .metadata()
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        Ok(Self::Part(path.into(), 0, length))
    }

    pub fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Part(_, _, length) => *length,
        }
    }

    pub fn read(&self) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        self.open()?.read_to_end(&mut content)?;
        if content.len() as u64 != self.length() {
            bail!("a file became shorter while it was being read");
        }
        Ok(content)
    }

    fn open(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(&bytes[..]),
            Self::Part(path, offset, length) => {
                let mut file =
                    File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                file.seek(SeekFrom::Start(*offset))?;
                Box::new(file.take(*length))
            }
        })
    }
}

/// A file, directory or link with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub node: Node,
    /// Permission bits, set-id bits among them.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Extended attributes, as pax records name them.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    pub fn new(node: Node, mode: u32) -> Self {
        Self {
            node,
            mode,
            uid: 0,
            gid: 0,
            attributes: BTreeMap::new(),
        }
    }

    /// Whether owner, mode and attributes are those of `other`.
    pub fn same_metadata(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid, &self.attributes)
            == (other.mode, other.uid, other.gid, &other.attributes)
    }
}

/// A tree: entries by path without leading slash, parents before children.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Reads a tar archive from a file; what it has replaces what is there. Devices, sockets and
    /// FIFOs are left out: a running system makes its own.
    pub fn read_tar(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let source: Arc<Path> = path.into();
        let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 16, file));
        let mut extended = Extended::default();
        // Raw: the crate's own reader of pax records stops at a line feed in a value, and file
        // capabilities are binary.
        for entry in archive.entries_with_seek()?.raw(true) {
            let mut entry =
                entry.with_context(|| format!("cannot read the archive {}", path.display()))?;
            if extended.take(&mut entry)? {
                continue;
            }
            let Extended {
                path: name,
                target,
                attributes,
                size,
            } = std::mem::take(&mut extended);
            ensure!(
                size.is_none_or(|size| size == entry.size()),
                "the archive {} has a file of 8 GiB or more",
                path.display()
            );
            let name = match name {
                Some(name) => name,
                None => text(&entry.header().path_bytes())?,
            };
            let target = match (target, entry.header().link_name_bytes()) {
                (Some(target), _) => Some(target),
                (None, Some(target)) => Some(text(&target)?),
                (None, None) => None,
            };
            let Some(name) = clean(&name) else {
                continue;
            };
            let kind = entry.header().entry_type();
            let node = if kind.is_dir() {
                Node::Directory
            } else if kind.is_symlink() {
                Node::Symlink(target.context("a link without a target")?)
            } else if kind.is_hard_link() {
                let target = target
                    .as_deref()
                    .and_then(clean)
                    .context("a link to nothing")?;
                let linked = self
                    .place(&target)
                    .and_then(|target| self.entries.get(&target))
                    .with_context(|| format!("{name} links to {target}, which is not there"))?
                    .clone();
                self.insert(&name, linked);
                continue;
            } else if kind.is_file() {
                let (offset, length) = (entry.raw_file_position(), entry.size());
                Node::File(Bytes::Part(source.clone(), offset, length))
            } else {
                continue;
            };
            let header = entry.header();
            let read = Entry {
                node,
                mode: header.mode()? & 0o7777,
                uid: header.uid()?,
                gid: header.gid()?,
                attributes,
            };
            self.insert(&name, read);
        }
        Ok(())
    }

    /// Adds or replaces an entry. Links among its parents are followed, as the running system will, and a
    /// directory where there is a link to one goes through it. What leads nowhere is left out.
    pub fn insert(&mut self, path: &str, entry: Entry) {
        let Some(path) = self.place(path) else { return };
        let parents: Vec<_> = path
            .match_indices('/')
            .map(|(i, _)| path[..i].to_owned())
            .collect();
        for parent in parents {
            self.entries
                .entry(parent)
                .or_insert_with(|| Entry::new(Node::Directory, 0o755));
        }
        if entry.node == Node::Directory
            && self
                .get(&path)
                .is_some_and(|there| matches!(there.node, Node::Symlink(_)))
        {
            return;
        }
        if entry.node != Node::Directory
            && self
                .get(&path)
                .is_some_and(|there| there.node == Node::Directory)
        {
            self.remove(&path);
        }
        self.entries.insert(path, entry);
    }

    /// [`Tree::insert`] for what a person asks for.
    ///
    /// # Errors
    /// It could not be seen in the running system.
    pub fn put(&mut self, path: &str, entry: Entry) -> Result<()> {
        let place = self.place(path).with_context(|| {
            format!("{path} cannot be laid over: it is the root itself, or its links go in circles")
        })?;
        let led = match Some(&place) == clean(path).as_ref() {
            true => String::new(),
            false => format!(" (it leads to /{place})"),
        };
        let top = place.split('/').next().unwrap_or_default();
        ensure!(
            !VOLATILE.contains(&top) || !place.contains('/'),
            "{path}{led} is below /{top}, which is mounted over at every start, so that nobody would see it; \
             have it made by a file in /usr/lib/tmpfiles.d"
        );
        for (i, _) in place.match_indices('/') {
            let parent = &place[..i];
            ensure!(
                !matches!(
                    self.get(parent),
                    Some(Entry {
                        node: Node::File(_),
                        ..
                    })
                ),
                "{path}{led} cannot be laid over: /{parent} is a file"
            );
        }
        self.insert(path, entry);
        Ok(())
    }

    /// Where a path leads: links among its parents are followed, whether what they lead to is there or not.
    pub(crate) fn place(&self, path: &str) -> Option<String> {
        let path = clean(path)?;
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = done.join("/");
            let Some(Node::Symlink(target)) = self.entries.get(&here).map(|entry| &entry.node)
            else {
                continue;
            };
            if todo.is_empty() {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.starts_with('/') {
                done.clear();
            } else {
                done.pop();
            }
            todo.extend(target.split('/').rev().map(str::to_owned));
        }
        clean(&done.join("/"))
    }

    /// The entry of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.trim_matches('/'))
    }

    /// The entry of a path, to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Entry> {
        self.entries.get_mut(path.trim_matches('/'))
    }

    /// Removes a path and what is below it.
    pub fn remove(&mut self, path: &str) {
        let Some(path) = clean(path) else { return };
        self.entries.remove(&path);
        let below = self.below(&path);
        for name in below {
            self.entries.remove(&name);
        }
    }

    /// Removes every path that the pattern matches, and what is below. `*` stands for any part of
    /// one name.
    pub fn remove_matching(&mut self, pattern: &str) {
        let Some(pattern) = clean(pattern) else {
            return;
        };
        let pattern: Vec<&str> = pattern.split('/').collect();
        self.entries.retain(|name, _| {
            let mut parts = name.split('/');
            !pattern
                .iter()
                .all(|wanted| parts.next().is_some_and(|part| matches(wanted, part)))
        });
    }

    /// Removes what is below a path.
    pub fn empty(&mut self, path: &str) {
        for name in self.below(path.trim_matches('/')) {
            self.entries.remove(&name);
        }
    }

    /// The paths below a directory.
    pub fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{}/", path.trim_matches('/'));
        self.entries
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Moves a path and what is below it.
    pub fn rename(&mut self, from: &str, to: &str) {
        let (from, to) = (from.trim_matches('/'), to.trim_matches('/'));
        let mut moved = Vec::new();
        if let Some(entry) = self.entries.remove(from) {
            moved.push((to.to_owned(), entry));
        }
        for name in self.below(from) {
            if let Some(entry) = self.entries.remove(&name) {
                moved.push((format!("{to}{}", &name[from.len()..]), entry));
            }
        }
        for (name, entry) in moved {
            self.insert(&name, entry);
        }
    }

    /// Keeps only what `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&str, &Entry) -> bool) {
        self.entries.retain(|name, entry| keep(name, entry));
    }

    /// All entries, parents before children.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// Whether a path, followed through links, is there.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path, 0).is_some()
    }

    fn resolve(&self, path: &str, depth: usize) -> Option<String> {
        if depth > 16 {
            return None;
        }
        let mut done = String::new();
        let parts: Vec<&str> = path
            .split('/')
            .filter(|p| !p.is_empty() && *p != ".")
            .collect();
        for (i, part) in parts.iter().enumerate() {
            if *part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let next = if done.is_empty() {
                (*part).to_owned()
            } else {
                format!("{done}/{part}")
            };
            match &self.entries.get(&next)?.node {
                Node::Symlink(target) => {
                    let base = if target.starts_with('/') { "" } else { &done };
                    let rest = parts[i + 1..].join("/");
                    return self.resolve(&format!("{base}/{target}/{rest}"), depth + 1);
                }
                _ => done = next,
            }
        }
        Some(done)
    }

    /// Writes a tar archive in which every entry has the time `epoch` (seconds since 1970).
    /// Files that are the same part of the same source become hard links.
    pub fn write_tar(&self, output: impl Write, epoch: u64) -> Result<()> {
        let mut builder = tar::Builder::new(output);
        let mut written: HashMap<&Bytes, &str> = HashMap::new();
        let mut root = header(&Entry::new(Node::Directory, 0o755), epoch);
        root.set_entry_type(tar::EntryType::Directory);
        root.set_size(0);
        builder.append_data(&mut root, "./", io::empty())?;
        for (name, entry) in &self.entries {
            let mut header = header(entry, epoch);
            let records: Vec<(String, &[u8])> = entry
                .attributes
                .iter()
                .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()))
                .collect();
            if !records.is_empty() {
                builder.append_pax_extensions(
                    records.iter().map(|(name, value)| (name.as_str(), *value)),
                )?;
            }
            match &entry.node {
                Node::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, format!("{name}/"), io::empty())?;
                }
                Node::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, name, target)?;
                }
                Node::File(bytes) => {
                    let part = matches!(bytes, Bytes::Part(..)) && bytes.length() > 0;
                    let first = written.get(bytes).copied().filter(|first| {
                        part && self
                            .entries
                            .get(*first)
                            .is_some_and(|e| e.same_metadata(entry))
                    });
                    if let Some(first) = first {
                        header.set_entry_type(tar::EntryType::Link);
                        header.set_size(0);
                        builder.append_link(&mut header, name, first)?;
                    } else {
                        written.insert(bytes, name);
                        header.set_entry_type(tar::EntryType::Regular);
                        header.set_size(bytes.length());
                        builder
                            .append_data(&mut header, name, bytes.open()?)
                            .with_context(|| format!("cannot add {name}"))?;
                    }
                }
            }
        }
        builder.finish()?;
        builder.into_inner()?.flush()?;
        Ok(())
    }

    /// Adds a file or directory of the host at `to`. Directories keep their links; a file is 0755
    /// if it may be executed and 0644 otherwise, unless `mode` says something else.
    pub fn add_host(&mut self, from: &Path, to: &str, mode: Option<u32>) -> Result<()> {
        let meta = from
            .symlink_metadata()
            .with_context(|| format!("cannot read {}", from.display()))?;
        if meta.is_dir() {
            let place = self.place(to);
            if clean(to).is_some() && place.is_none_or(|place| self.get(&place).is_none()) {
                self.put(to, Entry::new(Node::Directory, 0o755))?;
            }
            for entry in std::fs::read_dir(from)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name
                    .to_str()
                    .with_context(|| format!("{} is not UTF-8", entry.path().display()))?;
                self.add_host(
                    &entry.path(),
                    &format!("{}/{name}", to.trim_end_matches('/')),
                    mode,
                )?;
            }
            return Ok(());
        }
        let node = if meta.is_symlink() {
            let target = std::fs::read_link(from)?;
            Node::Symlink(
                target
                    .to_str()
                    .with_context(|| format!("{} is not UTF-8", target.display()))?
                    .to_owned(),
            )
        } else {
            Node::File(Bytes::of_file(from)?)
        };
        let executable = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
        let default = if executable { 0o755 } else { 0o644 };
        self.put(to, Entry::new(node, mode.unwrap_or(default)))
    }
}

/// What extra headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    target: Option<String>,
    size: Option<u64>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Extended {
    /// Takes in an entry if it is an extra header: pax (POSIX.1-2017, pax, "pax Extended Header")
    /// or GNU's long names.
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool> {
        let kind = entry.header().entry_type();
        let long = kind.is_gnu_longname() || kind.is_gnu_longlink();
        if !long && !kind.is_pax_local_extensions() {
            return Ok(kind.is_pax_global_extensions());
        }
        let mut body = Vec::new();
        entry.read_to_end(&mut body)?;
        if long {
            let end = body.iter().position(|b| *b == 0).unwrap_or(body.len());
            let name = text(&body[..end])?;
            if kind.is_gnu_longname() {
                self.path = Some(name);
            } else {
                self.target = Some(name);
            }
            return Ok(true);
        }
        let mut rest = body.as_slice();
        while !rest.is_empty() {
            let (name, value, after) = record(rest).context("a malformed pax header")?;
            rest = after;
            match name {
                "path" => self.path = Some(text(value)?),
                "linkpath" => self.target = Some(text(value)?),
                "size" => self.size = text(value)?.parse().ok(),
                _ => {
                    if let Some(name) = name.strip_prefix("SCHILY.xattr.") {
                        self.attributes.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(true)
    }
}

/// The first record of a pax header, `LENGTH NAME=VALUE\n`, and what follows it.
fn record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let name = std::str::from_utf8(&body[..equals]).ok()?;
    Some((name, &body[equals + 1..], &bytes[length..]))
}

/// The files of the host that a tree's description depends on, for keys.
pub fn host_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let meta = path
        .symlink_metadata()
        .with_context(|| format!("cannot read {}", path.display()))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            found.extend(host_files(&entry?.path())?);
        }
        found.sort();
    } else {
        found.push(path.to_owned());
    }
    Ok(found)
}

fn header(entry: &Entry, epoch: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(epoch);
    header
}

/// Whether `name` is `pattern`, in which each `*` stands for any number of characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|i| name.is_char_boundary(*i))
                .any(|i| matches(rest, &name[i..]))
        }),
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => bail!("the name {:?} is not UTF-8", String::from_utf8_lossy(bytes)),
    }
}

/// A path without `./`, slashes at its ends, and with /bin, /lib … as a merged /usr has them.
/// Nothing for the root itself and for what leads out of it.
fn clean(path: &str) -> Option<String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && *p != ".")
        .collect();
    if parts.contains(&"..") {
        return None;
    }
    match parts[..] {
        [] => None,
        [first, _, ..] if MERGED.contains(&first) => Some(format!("usr/{}", parts.join("/"))),
        _ => Some(parts.join("/")),
    }
}

#[cfg(test)]
mod tests;
