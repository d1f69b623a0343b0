//! Users and groups that a recipe's files ask for, by sysusers.d(5).
//!
//! Packages make theirs when they are configured. What a recipe lays over comes later, and in the machine
//! systemd-sysusers.service does not run, since /etc was brought up to date when the image was made. So they
//! are made here, from the same lines: in the order of names, ids from 999 downwards, the same each time.
//! What depends on a running system (`%` specifiers, the owner of a file) is refused.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

use crate::root::tree::{Bytes, Entry, Node, Tree};

/// Where lines are, what goes before first.
const DIRECTORIES: [&str; 2] = ["etc/sysusers.d", "usr/lib/sysusers.d"];

/// The id of Debian's group `shadow`.
const SHADOW: u64 = 42;

/// The files of sysusers.d that are there, by path.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<String, Entry>);

impl Files {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut files = BTreeMap::new();
        for directory in DIRECTORIES {
            for path in tree.below(directory) {
                if let Some(entry) = tree.get(&path).filter(|_| path.ends_with(".conf")) {
                    files.insert(path, entry.clone());
                }
            }
        }
        Self(files)
    }
}

/// Makes what the files ask for that are new or changed since `before`. Gives those whose ids were chosen here, as
/// `name (id)`: the next image may choose others, and files on `state` keep the number.
///
/// # Errors
/// A line is wrong, or asks for what cannot be; the error names it.
pub(super) fn apply(tree: &mut Tree, before: &Files, epoch: u64) -> Result<Vec<String>> {
    let now = Files::of(tree);
    let mut lines = Vec::new();
    for (path, entry) in &now.0 {
        let name = path.rsplit('/').next().unwrap_or_default();
        let masked = path.starts_with(DIRECTORIES[1])
            && now.0.contains_key(&format!("{}/{name}", DIRECTORIES[0]));
        let Node::File(content) = &entry.node else {
            continue;
        };
        if before.0.get(path) == Some(entry) || masked {
            continue;
        }
        let text = content.read()?;
        for (n, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let place = format!("/{path}:{}", n + 1);
            lines.extend(
                Line::parse(line)
                    .context(place.clone())?
                    .map(|line| (place, line)),
            );
        }
    }
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let mut accounts = Accounts::read(tree, epoch)?;
    // Ids that are asked for are taken before others are given away.
    lines.sort_by_key(|(_, line)| line.order());
    for (place, line) in &lines {
        accounts.make(line).context(place.clone())?;
    }
    let mut given = Vec::new();
    for (_, line) in &lines {
        let (name, there) = match line {
            Line::User(user) if user.id.is_none() => (&user.name, &accounts.passwd),
            Line::Group { name, id: None } => (name, &accounts.group),
            _ => continue,
        };
        let before = accounts.before.contains(name);
        given.extend(
            id_of(there, name)
                .filter(|_| !before)
                .map(|id| format!("{name} ({id})")),
        );
    }
    given.sort();
    given.dedup();
    accounts.write(tree);
    Ok(given)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Range(u64, u64),
    Group { name: String, id: Option<u64> },
    User(User),
    Member { user: String, group: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    id: Option<u64>,
    /// The primary group, where it is not the one of the same name.
    group: Option<String>,
    locked: bool,
    gecos: String,
    home: String,
    shell: String,
}

impl Line {
    fn order(&self) -> u8 {
        match self {
            Self::Range(..) => 0,
            Self::Group { id, .. } => 1 + u8::from(id.is_none()) * 2,
            Self::User(User { id, .. }) => 2 + u8::from(id.is_none()) * 2,
            Self::Member { .. } => 5,
        }
    }

    fn parse(line: &str) -> Result<Option<Self>> {
        if line.trim_start().starts_with('#') {
            return Ok(None);
        }
        let words = words(line)?;
        let Some(kind) = words.first() else {
            return Ok(None);
        };
        let word = |n: usize| words.get(n).map_or("", String::as_str);
        let field = |n: usize| Some(word(n)).filter(|word| !word.is_empty() && *word != "-");
        for (n, word) in words.iter().enumerate() {
            ensure!(
                !word.replace("%%", "").contains('%'),
                "`{word}` depends on the running system, and users are made with the image; write it out"
            );
            ensure!(n == 2 || !word.contains(':'), "`{word}` has a colon in it");
        }
        let id = |text: &str| -> Result<Option<u64>> {
            if text.is_empty() || text == "-" {
                return Ok(None);
            }
            ensure!(
                !text.starts_with('/'),
                "the id of the owner of {text} is not known here; write a number, or `-`"
            );
            let number = text.parse().ok().filter(|id| *id < 65_535);
            number
                .map(Some)
                .with_context(|| format!("`{text}` is no id: a number, or `-`"))
        };
        let name = |n: usize| -> Result<String> {
            let name = field(n).with_context(|| format!("field {} is missing", n + 1))?;
            let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            ensure!(
                name.len() <= 31
                    && name.chars().all(good)
                    && !name.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
                "`{name}` cannot be the name of a user or group"
            );
            Ok(name.to_owned())
        };
        Ok(Some(match kind.as_str() {
            "u" | "u!" => {
                let (user, group) = match word(2).split_once(':') {
                    Some((user, group)) => (user, Some(group.to_owned())),
                    None => (word(2), None),
                };
                let text = |n: usize, default: &str| field(n).unwrap_or(default).replace("%%", "%");
                Self::User(User {
                    name: name(1)?,
                    id: id(user)?,
                    group,
                    locked: kind.ends_with('!'),
                    gecos: text(3, ""),
                    home: text(4, "/"),
                    shell: text(5, "/usr/sbin/nologin"),
                })
            }
            "g" => Self::Group {
                name: name(1)?,
                id: id(word(2))?,
            },
            "m" => Self::Member {
                user: name(1)?,
                group: name(2)?,
            },
            "r" => {
                let (low, high) = word(2).split_once('-').unwrap_or((word(2), word(2)));
                let range = id(low)?.zip(id(high)?).filter(|(low, high)| low <= high);
                let (low, high) =
                    range.with_context(|| format!("`{}` is no range of ids", word(2)))?;
                Self::Range(low, high)
            }
            other => bail!("`{other}` is none of `u`, `u!`, `g`, `m` and `r`"),
        }))
    }
}

/// The words of a line: quoted in whole or in part, a backslash before what stands for itself (systemd.syntax(7)).
fn words(line: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let next = rest.next().context("a backslash with nothing after it")?;
                word.get_or_insert_default().push(next);
            }
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            c if quote.is_none() && c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        bail!("a {quote} that does not end");
    }
    words.extend(word);
    Ok(words)
}

/// The files of /etc, line by line.
struct Accounts {
    passwd: Vec<String>,
    group: Vec<String>,
    shadow: Vec<String>,
    gshadow: Vec<String>,
    range: (u64, u64),
    /// Names of users and groups that packages made.
    before: BTreeSet<String>,
    /// Days since 1970.
    today: u64,
}

impl Accounts {
    fn read(tree: &Tree, epoch: u64) -> Result<Self> {
        let lines = |path: &str| -> Result<Vec<String>> {
            match tree.get(path).map(|entry| &entry.node) {
                Some(Node::File(content)) => {
                    let text = content.read()?;
                    let text = String::from_utf8_lossy(&text);
                    Ok(text.lines().map(str::to_owned).collect())
                }
                _ => Ok(Vec::new()),
            }
        };
        let (passwd, group) = (lines("etc/passwd")?, lines("etc/group")?);
        let names = passwd.iter().chain(&group).filter_map(|line| parts(line));
        Ok(Self {
            before: names.map(|(name, _)| name.to_owned()).collect(),
            passwd,
            group,
            shadow: lines("etc/shadow")?,
            gshadow: lines("etc/gshadow")?,
            // As Debian's systemd has it.
            range: (100, 999),
            today: epoch / 86_400,
        })
    }

    fn write(self, tree: &mut Tree) {
        for (path, lines, mode, gid) in [
            ("etc/passwd", self.passwd, 0o644, 0),
            ("etc/group", self.group, 0o644, 0),
            ("etc/shadow", self.shadow, 0o640, SHADOW),
            ("etc/gshadow", self.gshadow, 0o640, SHADOW),
        ] {
            let text = lines.join("\n") + "\n";
            let node = Node::File(Bytes::Memory(text.into_bytes().into()));
            let mut entry = match tree.get(path) {
                Some(there) => there.clone(),
                None => {
                    let mut entry = Entry::new(Node::Directory, mode);
                    entry.gid = gid;
                    entry
                }
            };
            entry.node = node;
            tree.insert(path, entry);
        }
    }

    fn make(&mut self, line: &Line) -> Result<()> {
        match line {
            Line::Range(low, high) => self.range = (*low, *high),
            Line::Group { name, id } => {
                self.group(name, *id)?;
            }
            Line::User(user) => self.user(user)?,
            Line::Member { user, group } => {
                self.group(group, None)?;
                if id_of(&self.passwd, user).is_none() {
                    let Some(Line::User(made)) = Line::parse(&format!("u {user}"))? else {
                        bail!("`{user}` cannot be a user");
                    };
                    self.user(&made)?;
                }
                for lines in [&mut self.group, &mut self.gshadow] {
                    add_member(lines, group, user);
                }
            }
        }
        Ok(())
    }

    /// Gives the group's id.
    fn group(&mut self, name: &str, id: Option<u64>) -> Result<u64> {
        if let Some(there) = id_of(&self.group, name) {
            ensure!(
                id.is_none_or(|id| id == there),
                "there is a group `{name}` with the id {there}"
            );
            return Ok(there);
        }
        let id = match id {
            Some(id) => {
                self.ensure_free("group", name, id)?;
                id
            }
            // The id of the user of the same name, if that can be.
            None => match id_of(&self.passwd, name) {
                Some(id) if name_of(&self.group, id).is_none() => id,
                _ => self.free_id()?,
            },
        };
        self.group.push(format!("{name}:x:{id}:"));
        self.gshadow.push(format!("{name}:!*::"));
        Ok(id)
    }

    fn user(&mut self, user: &User) -> Result<()> {
        let name = &user.name;
        if let Some(there) = id_of(&self.passwd, name) {
            ensure!(
                user.id.is_none_or(|id| id == there),
                "there is a user `{name}` with the id {there}"
            );
            return Ok(());
        }
        if let Some(id) = user.id {
            self.ensure_free("user", name, id)?;
        }
        let (id, gid) = match &user.group {
            Some(group) => {
                let by_name = id_of(&self.group, group);
                let by_id = group.parse().ok();
                let by_id = by_id.filter(|id| name_of(&self.group, *id).is_some());
                let gid = by_name.or(by_id).with_context(|| {
                    format!("there is no group `{group}`; make it by a line of its own")
                })?;
                (user.id.map_or_else(|| self.free_id(), Ok)?, gid)
            }
            None => {
                let wanted = user.id.filter(|_| id_of(&self.group, name).is_none());
                let gid = self.group(name, wanted)?;
                let id = match user.id {
                    Some(id) => id,
                    None if name_of(&self.passwd, gid).is_none() => gid,
                    None => self.free_id()?,
                };
                (id, gid)
            }
        };
        let (gecos, home, shell) = (&user.gecos, &user.home, &user.shell);
        self.passwd
            .push(format!("{name}:x:{id}:{gid}:{gecos}:{home}:{shell}"));
        let expires = if user.locked { "1" } else { "" };
        self.shadow
            .push(format!("{name}:!*:{}:::::{expires}:", self.today));
        Ok(())
    }

    fn ensure_free(&self, what: &str, name: &str, id: u64) -> Result<()> {
        let lines = if what == "user" {
            &self.passwd
        } else {
            &self.group
        };
        if let Some(other) = name_of(lines, id) {
            bail!(
                "the id {id} of the {what} `{name}` is that of `{other}`; choose another, or `-`"
            );
        }
        Ok(())
    }

    /// The highest id of the range that neither a user nor a group has.
    fn free_id(&self) -> Result<u64> {
        let lines = self.passwd.iter().chain(&self.group);
        let taken: BTreeSet<u64> = lines
            .filter_map(|line| parts(line)?.1.parse().ok())
            .collect();
        let (low, high) = self.range;
        let mut ids = (low..=high).rev();
        ids.find(|id| !taken.contains(id))
            .with_context(|| format!("no id from {low} to {high} is free"))
    }
}

/// Name and id of a line of passwd or group.
fn parts(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.split(':');
    Some((parts.next()?, parts.nth(1)?))
}

fn id_of(lines: &[String], name: &str) -> Option<u64> {
    let mut all = lines.iter().filter_map(|line| parts(line));
    all.find(|(there, _)| *there == name)?.1.parse().ok()
}

fn name_of(lines: &[String], id: u64) -> Option<&str> {
    let id = id.to_string();
    let mut all = lines.iter().filter_map(|line| parts(line));
    Some(all.find(|(_, there)| *there == id)?.0)
}

fn add_member(lines: &mut [String], group: &str, user: &str) {
    let of_group = |line: &&mut String| line.split(':').next() == Some(group);
    let Some(line) = lines.iter_mut().find(of_group) else {
        return;
    };
    let members = line.rsplit(':').next().unwrap_or_default();
    if members.split(',').all(|member| member != user) {
        if !members.is_empty() {
            line.push(',');
        }
        line.push_str(user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(conf: &str) -> Tree {
        let mut tree = Tree::default();
        let mut put = |path: &str, text: &str| {
            let node = Node::File(Bytes::Memory(text.as_bytes().into()));
            tree.insert(path, Entry::new(node, 0o640));
        };
        put(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nnet:x:998:998::/:/x\n",
        );
        put("etc/group", "root:x:0:\nnet:x:998:\njournal:x:999:\n");
        put("etc/shadow", "root:*:20089:0:99999:7:::\n");
        put("etc/gshadow", "root:*::\njournal:!*::\n");
        put("usr/lib/sysusers.d/own.conf", conf);
        tree
    }

    fn text(tree: &Tree, path: &str) -> String {
        let Some(Node::File(content)) = tree.get(path).map(|entry| &entry.node) else {
            panic!("{path}");
        };
        String::from_utf8(content.read().unwrap()).unwrap()
    }

    fn applied(conf: &str) -> Result<Tree> {
        let mut tree = tree(conf);
        apply(&mut tree, &Files::default(), 20_700 * 86_400 + 5).map(|_| tree)
    }

    #[test]
    fn users_and_groups_of_a_recipe_are_made() {
        let tree = applied(
            "# The agent's\n\nu agent - \"The agent\" /var/lib/agent\nu! fixed 400\ng lights -\n\
             m agent journal\nm agent lights\nu other -:lights - - /bin/sh\n",
        )
        .unwrap();
        let passwd = text(&tree, "etc/passwd");
        let made: Vec<_> = passwd.lines().skip(2).collect();
        assert_eq!(
            made,
            [
                "fixed:x:400:400::/:/usr/sbin/nologin",
                "agent:x:996:996:The agent:/var/lib/agent:/usr/sbin/nologin",
                "other:x:995:997::/:/bin/sh",
            ]
        );
        let group = text(&tree, "etc/group");
        for line in [
            "journal:x:999:agent",
            "lights:x:997:agent",
            "fixed:x:400:",
            "agent:x:996:",
        ] {
            assert!(
                group.lines().any(|there| there == line),
                "{line} in {group}"
            );
        }
        let shadow = text(&tree, "etc/shadow");
        assert!(
            shadow.contains("\nfixed:!*:20700:::::1:\nagent:!*:20700::::::\n"),
            "{shadow}"
        );
        assert!(text(&tree, "etc/gshadow").contains("journal:!*::agent\n"));
        assert_eq!(tree.get("etc/shadow").unwrap().mode, 0o640);
    }

    #[test]
    fn ids_that_were_chosen_are_named() {
        let mut tree = tree("u agent -\nu! fixed 400\ng lights -\nu net -\nm agent journal\n");
        let given = apply(&mut tree, &Files::default(), 0).unwrap();
        assert_eq!(given, ["agent (996)", "lights (997)"]);
    }

    #[test]
    fn words_are_those_of_systemd() {
        for (line, expected) in [
            (
                r#" u  a - "The \"agent\"" "#,
                &["u", "a", "-", r#"The "agent""#][..],
            ),
            (r#"u a - 'a\'b' """#, &["u", "a", "-", "a'b", ""]),
            (r#"u a - A" b "c\ d\\"#, &["u", "a", "-", r"A b c d\"]),
        ] {
            assert_eq!(words(line).unwrap(), expected);
        }
        assert!(words(r"u a\").is_err());
    }

    #[test]
    fn what_packages_ask_for_was_made_before() {
        let mut tree = tree("u theirs -\n");
        let before = Files::of(&tree);
        let passwd = text(&tree, "etc/passwd");
        apply(&mut tree, &before, 0).unwrap();
        assert_eq!(text(&tree, "etc/passwd"), passwd);
        // A file of the same name in /etc takes its place.
        let node = Node::File(Bytes::Memory(b"u ours -\n".as_slice().into()));
        tree.insert("etc/sysusers.d/own.conf", Entry::new(node, 0o644));
        apply(&mut tree, &Files::default(), 0).unwrap();
        let passwd = text(&tree, "etc/passwd");
        assert!(
            passwd.contains("ours") && !passwd.contains("theirs"),
            "{passwd}"
        );
    }

    #[test]
    fn what_is_there_stays_and_is_not_contradicted() {
        let tree = applied("u net -\ng journal 999\n").unwrap();
        assert_eq!(text(&tree, "etc/passwd").lines().count(), 2);
        for (line, expected) in [
            ("u own 998", "is that of `net`"),
            ("g own 999", "is that of `journal`"),
            ("u net 500", "with the id 998"),
            ("u own -:none", "no group `none`"),
            ("u own /usr/bin/own", "write a number"),
            ("u own - %H", "running system"),
            ("u o:wn", "colon"),
            ("x own", "is none of"),
            ("u", "field 2 is missing"),
            ("u own - \"text", "does not end"),
            ("r - 5-1", "no range"),
        ] {
            let error = format!("{:#}", applied(line).unwrap_err());
            assert!(error.contains(expected), "{line}: {error}");
            assert!(error.contains("/usr/lib/sysusers.d/own.conf:1"), "{error}");
        }
    }
}
