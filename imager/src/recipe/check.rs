//! Values of a recipe that are well formed and senseless: what can never work is a mistake, what could be meant is odd.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use boot_core::floor::STEP;

use super::read::{File, Table};
use super::{Artefact, Kind, Persist, Recipe};
use crate::arch::Architecture;
use crate::boot::modules::module_name;
use crate::boot::uki;
use crate::root::tree::{VOLATILE, matches};

/// Without any of these nothing starts.
const NEEDED: [&str; 5] = [
    "/etc",
    "/usr/bin/bootctl",
    "/usr/lib/sternpost",
    "/usr/lib/systemd/systemd",
    "/usr/sbin/init",
];

/// From here on an image has room to grow in.
const ROOM: f64 = 1.2;

/// Compressions of erofs, and the levels that each has.
const COMPRESSIONS: [(&str, &[RangeInclusive<u32>]); 5] = [
    ("none", &[]),
    ("lz4", &[]),
    ("lz4hc", &[0..=12]),
    ("zstd", &[0..=22]),
    ("lzma", &[0..=9, 100..=109]),
];

/// What decides how an image starts, beside the words that every image has.
const STARTS: [&str; 4] = ["init=", "rdinit=", "root=", "sternpost."];

/// What gives whoever stands at the console a shell, or the kernel's own commands.
const OPENS: [&str; 10] = [
    "systemd.debug_shell",
    "systemd.debug-shell",
    "systemd.unit=",
    "systemd.setenv=",
    "rd.",
    "single",
    "rescue",
    "emergency",
    "sysrq_always_enabled",
    "1",
];

/// Words that every image has, and that may as well be others.
const FREE: [&str; 2] = ["loglevel=", "systemd.getty_auto="];

/// Whether it may name a product or an image.
pub(crate) fn is_word(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 64 && text.chars().all(good) && !text.starts_with(['.', '-'])
}

pub(super) fn word(file: &mut File<'_>, field: &str, text: &str, at: &Range<usize>) {
    if !is_word(text) {
        file.wrong(
            at,
            format!("`{field}` is at most 64 letters, digits, `_`, `-` and `.`, the first neither `-` nor `.`"),
        );
    }
}

/// How new the image is, to machines with floors.
pub(super) fn security_version(file: &mut File<'_>, version: u64, at: &Range<usize>) {
    if version > STEP {
        file.wrong(
            at,
            format!(
                "a new machine has the floor 0 and takes nothing more than {STEP} above it, so it would never raise it to \
                 {version}; for machines whose floor was driven up, build with `--security-version`"
            ),
        );
    }
}

/// Debian policy 5.6.7: lower-case letters, digits, `+`, `-`, `.`; at least two.
pub(super) fn package(file: &mut File<'_>, name: &str, at: &Range<usize>) {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if name.len() < 2 || !name.chars().all(good) || name.starts_with(['+', '-', '.']) {
        file.wrong(
            at,
            format!("`{name}` cannot be the name of a Debian package: lower-case letters, digits, `+`, `-` and `.`"),
        );
    }
}

/// Names that stand in the same list twice.
pub(super) fn twice(file: &mut File<'_>, field: &str, list: &[(String, Range<usize>)]) {
    for (n, (name, at)) in list.iter().enumerate() {
        if list.iter().take(n).any(|(other, _)| other == name) {
            file.odd(
                at,
                format!("`{name}` is in `{field}` already; once is enough"),
            );
        }
    }
}

/// A path in the image; whether it is one. Of one that is empty, whoever read it has spoken.
pub(super) fn absolute(file: &mut File<'_>, field: &str, path: &str, at: &Range<usize>) -> bool {
    let good = path.starts_with('/')
        && !path.split('/').any(|part| part == ".." || part == ".")
        && !path.contains(char::is_control);
    if !good && !path.is_empty() {
        file.wrong(
            at,
            format!(
                "`{field}` is an absolute path in the image, with no `.`, `..` or control character"
            ),
        );
    }
    good
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

fn top(path: &str) -> &str {
    parts(path).first().copied().unwrap_or_default()
}

/// A place for something that the image brings.
pub(super) fn place(file: &mut File<'_>, field: &str, path: &str, at: &Range<usize>) {
    if absolute(file, field, path, at) && VOLATILE.contains(&top(path)) {
        let top = top(path);
        file.wrong(
            at,
            format!("`{field}` is below /{top}, which is mounted over at every start, so that nobody would see it; \
                     have it made by a file in /usr/lib/tmpfiles.d"),
        );
    }
}

/// The place of an artefact, a file.
pub(super) fn artefact(
    file: &mut File<'_>,
    artefact: &Artefact,
    at: &Range<usize>,
    before: &[Artefact],
) {
    let Artefact {
        name, path, mode, ..
    } = artefact;
    if path.starts_with('/') && path.ends_with('/') {
        file.wrong(at, "`path` is that of a file, and ends in no `/`");
    }
    let mut others = before.iter().filter(|it| it.name != *name);
    if let Some(other) = others.find(|it| it.path == *path && !path.is_empty()) {
        file.wrong(
            at,
            format!(
                "the artefact `{0}` is at {path} already; name this one `{0}` to replace it, or give it another path",
                other.name
            ),
        );
    }
    if mode & 0o111 == 0 && (path.contains("/bin/") || path.contains("/sbin/")) {
        file.odd(
            at,
            format!("nobody can run {path}; a program has the `mode` 0755"),
        );
    }
}

/// A directory that is to outlive an upgrade.
pub(super) fn persist(file: &mut File<'_>, entry: &Persist, at: &Range<usize>, seen: &[String]) {
    let path = &entry.path;
    if !absolute(file, "path", path, at) {
        return;
    }
    let top = top(path);
    if path == "/etc" {
        file.wrong(
            at,
            "/etc is rendered anew at every start; name directories below it",
        );
    } else if let Some(needed) = NEEDED.iter().find(|it| hidden_by(path, it)) {
        file.wrong(
            at,
            format!("this hides {needed}, without which nothing starts; name a directory of the machine's own"),
        );
    } else if VOLATILE.contains(&top) {
        file.wrong(
            at,
            format!("/{top} is mounted over at every start; persist a directory of /etc or /srv"),
        );
    } else if path.contains('#') {
        file.wrong(
            at,
            "`path` has a `#`, which begins a comment in the image's list of these; name it without",
        );
    } else if seen.contains(path) {
        file.odd(
            at,
            format!(
                "{path} is in `persist` already, and the later counts; leave one of the two out"
            ),
        );
    } else if ["usr", "bin", "sbin", "lib", "lib64"].contains(&top) {
        file.odd(
            at,
            format!("{path} is then no part of the verified root: whatever is written there runs unverified"),
        );
    } else if top == "var" && !entry.per_epoch {
        file.odd(
            at,
            format!("{path} outlives an upgrade anyway, as all of /var does; leave it out, or say `per_epoch = true`"),
        );
    }
}

/// Whether something mounted at `path` hides `needed`; `/bin` is `/usr/bin`.
fn hidden_by(path: &str, needed: &str) -> bool {
    let needed = Path::new(needed);
    needed.starts_with(path) || needed.starts_with(format!("/usr{path}"))
}

/// What is left out of the root.
pub(super) fn exclude(file: &mut File<'_>, pattern: &str, at: &Range<usize>) {
    if !absolute(file, "exclude", pattern, at) {
        return;
    }
    let takes = |needed: &str| {
        let (pattern, needed) = (parts(pattern), parts(needed));
        let mut pairs = pattern.iter().zip(&needed);
        pattern.len() <= needed.len() && pairs.all(|(one, other)| matches(one, other))
    };
    if let Some(needed) = NEEDED.iter().find(|needed| takes(needed)) {
        file.wrong(
            at,
            format!("this leaves out {needed}, without which nothing starts; name less of it"),
        );
    }
}

/// How many times the first image a slot holds.
pub(super) fn headroom(file: &mut File<'_>, headroom: f64, at: &Range<usize>) {
    if !(1.0..=16.0).contains(&headroom) {
        file.wrong(
            at,
            "`headroom` is how many times the first image a slot holds: 1 to 16",
        );
    } else if headroom < ROOM {
        file.odd(
            at,
            "a slot with so little headroom has hardly room for the next image; 2.5 is usual",
        );
    }
}

/// A compression of erofs, and its level.
pub(super) fn compression(file: &mut File<'_>, text: &str, at: &Range<usize>) {
    let (name, level) = match text.split_once(',') {
        Some((name, level)) => (name, Some(level)),
        None => (text, None),
    };
    let Some((_, levels)) = COMPRESSIONS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = COMPRESSIONS.iter().map(|(name, _)| *name).collect();
        file.wrong(
            at,
            format!(
                "`compression` is one of {}, and a level after a comma",
                known.join(", ")
            ),
        );
        return;
    };
    let Some(level) = level else { return };
    let has = |level: u32| levels.iter().any(|range| range.contains(&level));
    if levels.is_empty() {
        file.wrong(at, format!("`{name}` has no levels; write `{name}` alone"));
    } else if !level.parse().is_ok_and(has) {
        let levels = levels
            .iter()
            .map(|it| format!("{} to {}", it.start(), it.end()));
        let levels = levels.collect::<Vec<_>>().join(" and ");
        file.wrong(at, format!("`{name}` has the levels {levels}"));
    }
}

/// A word of the kernel command line.
pub(super) fn kernel_word(file: &mut File<'_>, word: &str, at: &Range<usize>) {
    let set = uki::COMMON
        .iter()
        .filter_map(|it| it.split_inclusive('=').next());
    let mut own = set.filter(|it| !FREE.contains(it)).chain(STARTS);
    if word.trim().is_empty() || !word.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        file.wrong(
            at,
            "a word of `command_line` is of visible ASCII and blanks, on one line",
        );
    } else if let Some(own) = own.find(|own| word.starts_with(own)) {
        file.odd(
            at,
            format!("`{own}` decides how a machine starts or recovers, which is the image's to say; leave it out"),
        );
    } else if OPENS.into_iter().any(|it| is_or_begins(word, it)) {
        file.odd(
            at,
            format!("`{word}` opens the console, or changes what is started, for whoever stands there; leave it out"),
        );
    }
}

/// Whether a word is `known`, with a value or without; or begins with it, where that ends in a sign.
fn is_or_begins(word: &str, known: &str) -> bool {
    if known.ends_with(['=', '.']) {
        word.starts_with(known)
    } else {
        word.split('=').next() == Some(known)
    }
}

/// The name of a kernel module.
pub(super) fn module(file: &mut File<'_>, name: &str, at: &Range<usize>) {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(good) {
        let meant = module_name(name);
        file.wrong(
            at,
            format!("modules are named with `_`, and without path and ending; write `{meant}`, not `{name}`"),
        );
    }
}

/// Where packages come from.
pub(super) fn mirror(file: &mut File<'_>, mirror: &str, at: &Range<usize>) {
    let known = ["http://", "https://", "file:", "copy:"];
    let spaces = mirror.contains(|c: char| c.is_whitespace() || c.is_control());
    if spaces || !known.iter().any(|scheme| mirror.starts_with(scheme)) {
        file.wrong(
            at,
            "`mirror` is an address such as https://deb.debian.org/debian or file:///srv/debian",
        );
    }
}

/// Addresses of a download, and what each has to be.
pub(super) fn download(
    file: &mut File<'_>,
    urls: &BTreeMap<Architecture, String>,
    sha256: &BTreeMap<Architecture, String>,
    at: &Range<usize>,
) {
    let mut different = urls.values().collect::<Vec<_>>();
    different.dedup();
    for url in different.iter().filter(|url| !url.is_empty()) {
        if !["http://", "https://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            file.wrong(at, "`url` is an http:// or https:// address");
            return;
        }
        if url.contains('{') {
            file.wrong(
                at,
                "`url` has in braces what is not known; {arch} and {debian} stand for the architecture's names",
            );
            return;
        }
    }
    let mut digests = sha256.values().collect::<Vec<_>>();
    digests.dedup();
    if different.len() > 1 && sha256.len() > 1 && digests.len() == 1 {
        file.odd(
            at,
            "two downloads have the same `sha256`; give each architecture its own",
        );
    }
}

/// A file of an archive.
pub(super) fn member(file: &mut File<'_>, member: &str, at: &Range<usize>) {
    if member.is_empty() || member.starts_with('/') || member.split('/').any(|part| part == "..") {
        file.wrong(
            at,
            "`member` is a path in the archive, without `/` before it and `..` in it",
        );
    }
}

/// A version of Kubernetes: two minors are compared by it.
pub(super) fn kubernetes(
    file: &mut File<'_>,
    (distribution, distribution_at): &(String, Range<usize>),
    (version, version_at): &(String, Range<usize>),
) {
    let numbers = version.split(['.', '-', '+']).take(3);
    let numbers = numbers.filter(|part| part.parse::<u32>().is_ok()).count();
    if !version.is_empty() && numbers < 3 {
        file.wrong(
            version_at,
            format!("`version` is one such as 1.36.3, without `v`, not `{version}`"),
        );
    }
    let known: Vec<_> = profile::kubernetes::ALL
        .iter()
        .map(|it| it.name())
        .collect();
    if !distribution.is_empty() && !known.contains(&distribution.as_str()) {
        let known = known.join(", ");
        file.odd(
            distribution_at,
            format!("no profile can set up `{distribution}`; what profiles can is {known}"),
        );
    }
}

/// Packages that are to be in the image and left out of it.
pub(super) fn contradictions(
    file: &mut File<'_>,
    recipe: &Recipe,
    named: &[(String, Range<usize>)],
) {
    for (name, at) in named {
        let wanted = recipe.packages.values().any(|list| list.contains(name));
        if wanted && recipe.discard.contains(name) {
            file.wrong(
                at,
                format!("`{name}` is both to be in the image and, by `discard`, not; take it out of one of the lists"),
            );
        }
    }
}

/// What only a system has.
pub(super) fn of_recovery(file: &mut File<'_>, kind: Kind, table: &mut Table<'_, '_>) {
    if kind != Kind::Recovery {
        return;
    }
    for field in ["recovery", "kubernetes", "vm"] {
        if let Some(value) = table.value(field) {
            file.odd(
                &value.span(),
                format!("`{field}` means nothing for a recovery system; leave it out"),
            );
        }
    }
}
