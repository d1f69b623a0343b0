//! The list of directories that outlive a start: /usr/lib/sternpost/persist.conf. Pure.
//!
//! ```text
//! # comment
//! shared /etc/ssh
//! per-epoch /var/lib/etcd
//! ```

use std::path::{Component, Path, PathBuf};

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One for all versions.
    Shared,
    /// Belongs to a version of Kubernetes: kept apart, so that it can be saved and go back with its slot.
    PerEpoch,
}

impl Scope {
    /// Folder under /state.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerEpoch => "epoch",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub scope: Scope,
    /// The directory, without the leading slash.
    pub path: PathBuf,
}

/// Entries in the order to bind them (a directory before what is below it), and lines that make no sense.
#[must_use]
pub fn parse(text: &str) -> (Vec<Entry>, Vec<String>) {
    let mut entries = Vec::new();
    let mut refused = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match entry(line) {
            Some(entry) => entries.push(entry),
            None => refused.push(format!(
                "persist.conf line {}: {line:?} is not `shared /path` or `per-epoch /path`",
                number + 1
            )),
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    (entries, refused)
}

fn entry(line: &str) -> Option<Entry> {
    let (scope, path) = line.split_once(char::is_whitespace)?;
    let scope = match scope {
        "shared" => Scope::Shared,
        "per-epoch" => Scope::PerEpoch,
        _ => return None,
    };
    let path = Path::new(path.trim()).strip_prefix("/").ok()?;
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && path.components().next().is_some()).then(|| Entry {
        scope,
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_nonsense_is_named() {
        let (entries, refused) = parse(
            "# list\nper-epoch /var/lib/etcd/member\nshared /var/lib/etcd # data\n\nshared ../x\nkeep /a\nshared /\n",
        );
        let paths: Vec<_> = entries.iter().map(|e| e.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["var/lib/etcd", "var/lib/etcd/member"]);
        assert_eq!(entries[0].scope, Scope::Shared);
        assert_eq!(refused.len(), 3);
        assert!(refused[0].contains("line 5"), "{refused:?}");
    }
}
