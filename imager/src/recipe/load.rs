//! Reads a recipe's files and lays each over what it extends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use boot_core::calendar::unix_seconds;
use toml::de::{DeTable, DeValue};

use super::check;
use super::read::{File, Said, Table};
use super::{
    Artefact, Compression, Console, GoSource, ImageSource, Kind, Kubernetes, Overlay, Persist,
    Recipe, Source,
};
use crate::arch::{Architecture, Names as _};
use crate::workshop::cache::is_sha256;

/// Ids of disk layouts that images can be built for.
const LAYOUTS: [&str; 1] = ["ab-1"];

/// Longest version that the boot-state record holds, in bytes.
const MAX_VERSION: usize = 32;

/// Reads `path` and everything that it extends.
pub(super) fn load(path: &Path) -> Result<Recipe> {
    let path = path.canonicalize().with_context(|| {
        format!(
            "cannot read the recipe {}; recipes/images has some to start from",
            path.display()
        )
    })?;
    let mut merged = Recipe {
        path: path.clone(),
        name: String::new(),
        kind: Kind::System,
        product: String::new(),
        version: "0.1.0".to_owned(),
        time: None,
        security_version: 1,
        state_epoch: 1,
        layout: LAYOUTS[0].to_owned(),
        suite: "trixie".to_owned(),
        mirror: None,
        components: vec!["main".to_owned()],
        kernel: BTreeMap::new(),
        packages: BTreeMap::new(),
        discard: Vec::new(),
        artefacts: Vec::new(),
        exclude: Vec::new(),
        files: Vec::new(),
        persist: Vec::new(),
        command_line: Vec::new(),
        initramfs_modules: Vec::new(),
        headroom: 2.5,
        compression: Compression::Uncompressed,
        recovery: None,
        recovery_console: Console::Open,
        profile: None,
        kubernetes: None,
        vm: Vec::new(),
        warnings: Vec::new(),
    };
    let mut said = Said::default();
    let mut pending = Vec::new();
    lay_over(&mut merged, &path, &mut pending, &mut said)?;
    let mistakes = &mut said.mistakes;
    if merged.name.is_empty() {
        merged.name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
    }
    for (missing, field) in [
        (merged.product.is_empty(), "product"),
        (merged.kernel.is_empty(), "[kernel]"),
        (merged.packages.is_empty(), "[packages]"),
    ] {
        if missing && mistakes.is_empty() {
            mistakes.push(format!(
                "{}:1:1: neither this recipe nor what it extends has `{field}`",
                path.display()
            ));
        }
    }
    if mistakes.is_empty() {
        merged.warnings = said.warnings;
        Ok(merged)
    } else {
        let count = match mistakes.len() {
            1 => "a mistake".to_owned(),
            n => format!("{n} mistakes"),
        };
        bail!(
            "the recipe {} has {count}:\n  {}",
            path.display(),
            [said.mistakes, said.warnings].concat().join("\n  ")
        );
    }
}

/// Reads one file over what is there; what it extends comes first.
fn lay_over(
    recipe: &mut Recipe,
    path: &Path,
    pending: &mut Vec<PathBuf>,
    said: &mut Said,
) -> Result<()> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the recipe {}", path.display()))?;
    let mut file = File::new(path, &text);
    let (document, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        file.wrong(
            &error.span().unwrap_or(0..0),
            error.message().replace('\n', ", "),
        );
    }
    if !errors.is_empty() {
        file.finish(said);
        return Ok(());
    }
    let mut table = Table::new("a recipe", document.get_ref(), 0..0);
    let bases: Vec<(String, Range<usize>)> = match table.value("extends") {
        Some(value) if matches!(value.get_ref(), DeValue::Array(_)) => {
            table.list_at(&mut file, "extends")
        }
        Some(_) => table.text_at(&mut file, "extends").into_iter().collect(),
        None => Vec::new(),
    };
    pending.push(path.to_owned());
    for (base, at) in bases {
        match file.resolve(&base).canonicalize() {
            Ok(found) if pending.contains(&found) => file.wrong(
                &at,
                format!("by `{base}` this recipe extends itself; leave it out"),
            ),
            Ok(found) => lay_over(recipe, &found, pending, said)?,
            Err(error) => file.wrong(&at, format!("cannot read `{base}`: {error}")),
        }
    }
    pending.pop();
    fields(recipe, &mut file, table);
    file.finish(said);
    Ok(())
}

fn fields(recipe: &mut Recipe, file: &mut File<'_>, mut table: Table<'_, '_>) {
    let t = &mut table;
    if let Some((name, at)) = t.text_at(file, "name") {
        check::word(file, "name", &name, &at);
        recipe.name = name;
    }
    if let Some((kind, at)) = t.text_at(file, "kind") {
        match kind.as_str() {
            "system" => recipe.kind = Kind::System,
            "recovery" => recipe.kind = Kind::Recovery,
            other => file.wrong(&at, format!("`kind` is system or recovery, not `{other}`")),
        }
    }
    if let Some((product, at)) = t.text_at(file, "product") {
        check::word(file, "product", &product, &at);
        recipe.product = product;
    }
    if let Some((version, at)) = t.text_at(file, "version") {
        if version.len() > MAX_VERSION || !version.chars().all(|c| c.is_ascii_graphic()) {
            file.wrong(
                &at,
                format!("`version` is 1 to {MAX_VERSION} visible ASCII characters"),
            );
        }
        recipe.version = version;
    }
    if let Some((text, at)) = t.text_at(file, "time") {
        let time = read_time(&text);
        if time.is_none() {
            file.wrong(
                &at,
                "`time` is a date in UTC such as 2026-11-20 or 2026-11-20T12:00:00Z",
            );
        }
        // Of several recipes laid over one another, the newest change counts.
        recipe.time = recipe.time.max(time);
    }
    if let Some(version) = t.number(file, "security_version") {
        let at = t.value("security_version").map_or(0..0, |it| it.span());
        check::security_version(file, version, &at);
        recipe.security_version = version;
    }
    replace(&mut recipe.state_epoch, t.number(file, "state_epoch"));
    if let Some((layout, at)) = t.text_at(file, "layout") {
        if !LAYOUTS.contains(&layout.as_str()) {
            file.wrong(
                &at,
                format!(
                    "there is no layout `{layout}`; there is {}",
                    LAYOUTS.join(", ")
                ),
            );
        }
        recipe.layout = layout;
    }
    if let Some(mut debian) = t.table(file, "debian") {
        if let Some((suite, at)) = debian.text_at(file, "suite") {
            check::word(file, "suite", &suite, &at);
            recipe.suite = suite;
        }
        if let Some((mirror, at)) = debian.text_at(file, "mirror") {
            check::mirror(file, &mirror, &at);
            recipe.mirror = Some(mirror);
        }
        for (component, at) in debian.list_at(file, "components") {
            check::word(file, "components", &component, &at);
            extend(&mut recipe.components, vec![component]);
        }
        debian.finish(file);
    }
    if let Some(kernel) = t.table(file, "kernel") {
        recipe.kernel.extend(by_architecture(file, kernel, false));
    }
    if let Some(packages) = t.table(file, "packages") {
        read_packages(recipe, file, packages);
    }
    for artefact in t.tables(file, "artefacts") {
        let (artefact, at) = read_artefact(file, artefact);
        check::artefact(file, &artefact, &at, &recipe.artefacts);
        match recipe
            .artefacts
            .iter_mut()
            .find(|a| a.name == artefact.name)
        {
            Some(same) => *same = artefact,
            None => recipe.artefacts.push(artefact),
        }
    }
    for mut overlay in t.tables(file, "files") {
        let (from, at) = overlay.required(file, "from");
        let (to, to_at) = overlay.required(file, "to");
        check::place(file, "to", &to, &to_at);
        let read = Overlay {
            from: file.existing(&from, &at),
            to,
            mode: read_mode(file, &mut overlay),
        };
        overlay.finish(file);
        recipe.files.push(read);
    }
    let mut seen = Vec::new();
    for mut entry in t.tables(file, "persist") {
        let (mut path, at) = entry.required(file, "path");
        while path.len() > 1 && path.ends_with('/') {
            path.pop();
        }
        let per_epoch = entry.flag(file, "per_epoch").unwrap_or(false);
        entry.finish(file);
        let entry = Persist { path, per_epoch };
        check::persist(file, &entry, &at, &seen);
        seen.push(entry.path.clone());
        recipe.persist.retain(|p| p.path != entry.path);
        recipe.persist.push(entry);
    }
    for (word, at) in t.list_at(file, "command_line") {
        check::kernel_word(file, &word, &at);
        recipe.command_line.push(word);
    }
    for (module, at) in t.list_at(file, "initramfs_modules") {
        check::module(file, &module, &at);
        extend(&mut recipe.initramfs_modules, vec![module]);
    }
    for (path, at) in t.list_at(file, "exclude") {
        check::exclude(file, &path, &at);
        extend(&mut recipe.exclude, vec![path]);
    }
    if let Some((headroom, at)) = t.float(file, "headroom") {
        check::headroom(file, headroom, &at);
        recipe.headroom = headroom;
    }
    if let Some((compression, at)) = t.text_at(file, "compression") {
        check::compression(file, &compression, &at);
        recipe.compression = match compression.as_str() {
            "none" => Compression::Uncompressed,
            _ => Compression::Erofs(compression),
        };
    }
    read_recovery(recipe, file, t);
    if let Some((profile, at)) = t.text_at(file, "profile") {
        recipe.profile = Some(file.existing_file(&profile, &at));
    }
    if let Some(mut kubernetes) = t.table(file, "kubernetes") {
        let distribution = kubernetes.required(file, "distribution");
        let version = kubernetes.required(file, "version");
        check::kubernetes(file, &distribution, &version);
        recipe.kubernetes = Some(Kubernetes {
            distribution: distribution.0,
            version: version.0,
        });
        kubernetes.finish(file);
    }
    for (runtime, at) in t.list_at(file, "vm") {
        check::word(file, "vm", &runtime, &at);
        extend(&mut recipe.vm, vec![runtime]);
    }
    check::of_recovery(file, recipe.kind, t);
    table.finish(file);
}

/// The recovery system: its recipe, or a table that says more.
fn read_recovery(recipe: &mut Recipe, file: &mut File<'_>, table: &mut Table<'_, '_>) {
    let is_table = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().as_table().is_some();
    if !table.value("recovery").is_some_and(is_table) {
        if let Some((path, at)) = table.text_at(file, "recovery") {
            recipe.recovery = Some(file.existing_file(&path, &at));
        }
        return;
    }
    let Some(mut recovery) = table.table(file, "recovery") else {
        return;
    };
    if let Some((path, at)) = recovery.text_at(file, "recipe") {
        recipe.recovery = Some(file.existing_file(&path, &at));
    }
    if let Some((console, at)) = recovery.text_at(file, "console") {
        match console.as_str() {
            "open" => recipe.recovery_console = Console::Open,
            "password" => recipe.recovery_console = Console::Password,
            "none" => recipe.recovery_console = Console::None,
            other => file.wrong(
                &at,
                format!("`console` is open, password or none, not `{other}`"),
            ),
        }
        if recipe.recovery.is_none() {
            file.odd(
                &at,
                "there is no recovery system whose console this would be; name its recipe in `recovery.recipe`",
            );
        }
    }
    recovery.finish(file);
}

fn read_packages(recipe: &mut Recipe, file: &mut File<'_>, mut packages: Table<'_, '_>) {
    let common = packages.list_at(file, "common");
    check::twice(file, "common", &common);
    let mut named = common.clone();
    for architecture in Architecture::ALL {
        let own = packages.list_at(file, architecture.name());
        check::twice(file, architecture.name(), &own);
        named.extend(own.iter().cloned());
        let list = recipe.packages.entry(architecture).or_default();
        for (name, at) in common.iter().chain(&own) {
            check::package(file, name, at);
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    for (name, at) in packages.list_at(file, "discard") {
        check::package(file, &name, &at);
        extend(&mut recipe.discard, vec![name.clone()]);
        named.push((name, at));
    }
    check::contradictions(file, recipe, &named);
    packages.finish(file);
}

/// An artefact, and where its path stands.
fn read_artefact(file: &mut File<'_>, mut table: Table<'_, '_>) -> (Artefact, Range<usize>) {
    let (name, at) = table.required(file, "name");
    check::word(file, "name", &name, &at);
    let (path, at) = table.required(file, "path");
    check::place(file, "path", &path, &at);
    let mode = read_mode(file, &mut table).unwrap_or(0o755);
    let sources = table.tables(file, "sources");
    if sources.is_empty() {
        file.wrong(
            &table.span,
            format!("the artefact `{name}` needs at least one [[artefacts.sources]]"),
        );
    }
    table.finish(file);
    let sources = sources.into_iter();
    let artefact = Artefact {
        name,
        path,
        mode,
        sources: sources.filter_map(|it| read_source(file, it)).collect(),
    };
    (artefact, at)
}

fn read_source(file: &mut File<'_>, mut table: Table<'_, '_>) -> Option<Source> {
    let span = table.span.clone();
    let kinds: Vec<&str> = ["url", "file", "go", "image"]
        .into_iter()
        .filter(|kind| table.value(kind).is_some())
        .collect();
    let [kind] = kinds[..] else {
        file.wrong(
            &span,
            "a source has exactly one of `url`, `file`, `go` and `image`; of several, each is a source of its own",
        );
        return None;
    };
    let source = match kind {
        "url" => {
            let at = table.value("url").map_or(span, toml::Spanned::span);
            let url = text_or_table(file, &mut table, "url");
            let sha256 = read_digests(file, &mut table);
            check::download(file, &url, &sha256, &at);
            let member = table.text_at(file, "member");
            if let Some((member, at)) = &member {
                check::member(file, member, at);
            }
            Some(Source::Url {
                url,
                sha256,
                member: member.map(|(member, _)| member),
            })
        }
        "file" => {
            let path = table.text(file, "file").unwrap_or_default();
            Some(Source::File {
                path: file.resolve(&path),
                sha256: read_digests(file, &mut table),
            })
        }
        "go" => table
            .table(file, "go")
            .map(|go| Source::Go(read_go(file, go))),
        _ => table.table(file, "image").map(|mut image| {
            let program = image.table(file, "program");
            if program.is_none() {
                file.wrong(&image.span, "`image` needs a table `program`");
            }
            let read = ImageSource {
                program: program.map_or(
                    GoSource {
                        modules: PathBuf::new(),
                        package: String::new(),
                        ldflags: Vec::new(),
                        tags: Vec::new(),
                    },
                    |program| read_go(file, program),
                ),
                names: image.list(file, "names"),
                directories: image.list(file, "directories"),
            };
            image.finish(file);
            Source::Image(read)
        }),
    };
    table.finish(file);
    source
}

fn read_go(file: &mut File<'_>, mut go: Table<'_, '_>) -> GoSource {
    let (modules, at) = go.required(file, "modules");
    let read = GoSource {
        modules: file.existing(&modules, &at),
        package: go.required(file, "package").0,
        ldflags: go.list(file, "ldflags"),
        tags: go.list(file, "tags"),
    };
    go.finish(file);
    read
}

/// A text for both architectures (`{arch}` and `{debian}` stand for their names), or a table of one each.
fn text_or_table(
    file: &mut File<'_>,
    table: &mut Table<'_, '_>,
    field: &'static str,
) -> BTreeMap<Architecture, String> {
    match table.value(field).map(|value| value.get_ref()) {
        Some(DeValue::Table(_)) => match table.table(file, field) {
            Some(inner) => by_architecture(file, inner, true),
            None => BTreeMap::new(),
        },
        _ => {
            let text = table.text(file, field).unwrap_or_default();
            Architecture::ALL
                .into_iter()
                .map(|architecture| {
                    let text = text
                        .replace("{arch}", architecture.name())
                        .replace("{debian}", architecture.debian());
                    (architecture, text)
                })
                .collect()
        }
    }
}

fn read_digests(file: &mut File<'_>, table: &mut Table<'_, '_>) -> BTreeMap<Architecture, String> {
    let span = table.span.clone();
    if table.value("sha256").is_none() {
        file.wrong(
            &span,
            "this source needs a field `sha256`; nothing unchecked is used",
        );
        return BTreeMap::new();
    }
    let at = table.value("sha256").map_or(span, toml::Spanned::span);
    let digests = text_or_table(file, table, "sha256");
    for digest in digests.values().collect::<BTreeSet<_>>() {
        if !digest.is_empty() && !is_sha256(digest) {
            file.wrong(&at, "`sha256` is 64 lower-case hexadecimal digits");
        }
    }
    digests
}

fn by_architecture(
    file: &mut File<'_>,
    mut table: Table<'_, '_>,
    paths: bool,
) -> BTreeMap<Architecture, String> {
    let mut read = BTreeMap::new();
    for architecture in Architecture::ALL {
        if let Some((text, at)) = table.text_at(file, architecture.name()) {
            if !paths {
                check::package(file, &text, &at);
            }
            read.insert(architecture, text);
        }
    }
    table.finish(file);
    read
}

/// Seconds since 1970 of `YYYY-MM-DD`, or of that with `THH:MM:SSZ`.
fn read_time(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let parts = |text: &str, separator: char, lengths: [usize; 3]| -> Option<[i64; 3]> {
        let parts: Vec<&str> = text.split(separator).collect();
        let numbers: Vec<i64> = parts
            .iter()
            .zip(lengths)
            .filter(|(part, length)| part.len() == *length)
            .filter_map(|(part, _)| part.parse::<u32>().ok().map(i64::from))
            .collect();
        (parts.len() == 3).then_some(())?;
        numbers.try_into().ok()
    };
    let time = parts(time, ':', [2; 3]).filter(|[h, m, s]| *h < 24 && *m < 60 && *s < 60)?;
    let seconds = unix_seconds(parts(date, '-', [4, 2, 2])?, time, 0)?;
    u64::try_from(seconds).ok()
}

fn read_mode(file: &mut File<'_>, table: &mut Table<'_, '_>) -> Option<u32> {
    let (text, at) = table.text_at(file, "mode")?;
    let mode = u32::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    if mode.is_none() {
        file.wrong(&at, "`mode` is an octal text such as \"0755\"");
    }
    mode
}

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn extend(list: &mut Vec<String>, more: Vec<String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_in_utc() {
        assert_eq!(read_time("1970-01-02"), Some(86_400));
        assert_eq!(read_time("2026-11-20T12:00:01Z"), Some(1_795_176_001));
        for wrong in [
            "",
            "2026-11",
            "20-11-2026",
            "2026-11-20 12:00",
            "2026-11-20T12:00:00",
            "2026-13-01",
            "2026-11-20T24:00:00Z",
            "2026-11-20-01",
        ] {
            assert_eq!(read_time(wrong), None, "{wrong}");
        }
    }
}
