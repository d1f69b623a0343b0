//! The table of docs/formats/README.md: which release reads and writes which format. What is in the code is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use boot_core::{layout, public_key::KeyFormat};

use super::releases::releases;

/// Where a number is fixed, and the rows that it belongs to.
const CONSTANTS: [(&str, &[&str]); 9] = [
    (
        "boot-core/src/boot_report.rs",
        &["[state](state.md), `boot.json`"],
    ),
    ("boot-core/src/bundle.rs", &["[bundle](bundle.md)"]),
    ("boot-core/src/hand_over.rs", &["[hand-over](hand-over.md)"]),
    (
        "boot-core/src/manifest/mod.rs",
        &["[manifest](manifest.md)"],
    ),
    ("boot-core/src/record.rs", &["[boot-state](boot-state.md)"]),
    (
        "boot-core/src/ring.rs",
        &[
            "[event-ring](event-ring.md)",
            "[quarantine-ring](quarantine-ring.md)",
        ],
    ),
    (
        "boot-core/src/slot_header.rs",
        &["[slot-header](slot-header.md)"],
    ),
    (
        "bootctl/src/health/baseline.rs",
        &["[state](state.md), `baseline.json`"],
    ),
    (
        "bootctl/src/state/owner.rs",
        &["[state](state.md), `owner.json`"],
    ),
];

fn root() -> PathBuf {
    env!("STERNPOST_SOURCE").into()
}

/// The rows, by format and number; and the columns, the releases.
struct Table {
    releases: Vec<String>,
    rows: BTreeMap<(String, String), Vec<String>>,
}

fn table() -> Table {
    let page = fs::read_to_string(root().join("docs/formats/README.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = page
        .lines()
        .skip_while(|line| !line.starts_with("| format |"));
    let head = cells(lines.next().expect("there is a table of formats"));
    assert_eq!(head[..2], ["format", "number"]);
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let rows = rows.map(|line| {
        let mut cells = cells(line);
        assert_eq!(cells.len(), head.len(), "{line}");
        let by_release = cells.split_off(2);
        let known = ["reads, writes", "reads", "–"];
        assert!(
            by_release.iter().all(|it| known.contains(&it.as_str())),
            "{line}"
        );
        let [format, number]: [String; 2] = cells.try_into().unwrap();
        ((format, number), by_release)
    });
    Table {
        releases: head[2..].to_vec(),
        rows: rows.collect(),
    }
}

impl Table {
    /// What the release that is being made does with a format.
    fn now(&self, format: &str, number: impl ToString) -> &str {
        let at = self
            .releases
            .iter()
            .position(|it| it == env!("CARGO_PKG_VERSION"));
        let key = (format.to_owned(), number.to_string());
        let row = self
            .rows
            .get(&key)
            .unwrap_or_else(|| panic!("no row {key:?}"));
        &row[at.expect("the version that is being made has a column")]
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// Each `FORMAT` and `VERSION` that is a number: its file, and the number.
fn constants() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for source in ["boot-core/src", "bootctl/src", "initrd/src", "loader/src"] {
        sources(&root().join(source), &mut files);
    }
    let mut found = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        for line in fs::read_to_string(&file).unwrap().lines() {
            let line = line.trim_start_matches("pub ");
            let rest = ["const FORMAT: u", "const VERSION: u"]
                .iter()
                .find_map(|start| line.strip_prefix(start));
            if let Some((_, number)) = rest.and_then(|rest| rest.split_once(" = ")) {
                found.push((name.clone(), number.trim_end_matches(';').to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_number_in_the_code_is_in_the_table() {
    let table = table();
    let found = constants();
    let files: BTreeSet<_> = found.iter().map(|(file, _)| file.as_str()).collect();
    let known: BTreeSet<_> = CONSTANTS.iter().map(|(file, _)| *file).collect();
    assert_eq!(files, known, "where numbers of formats are fixed");
    for (file, number) in &found {
        let (_, rows) = CONSTANTS.iter().find(|(it, _)| it == file).unwrap();
        for row in *rows {
            assert_eq!(table.now(row, number), "reads, writes", "{file}");
        }
    }
    for format in KeyFormat::ALL {
        for row in ["[keyring](keyring.md)", "[trust](trust.md)"] {
            assert!(
                table.now(row, format).starts_with("reads"),
                "{row} {format}"
            );
        }
    }
    let layout = format!("`{}`", layout::AB_1);
    assert_eq!(table.now("[layout](layout.md)", layout), "reads, writes");
}

/// As `imager` and `bootctl` ask mkfs.ext4 for them.
#[test]
fn the_features_of_state_are_on_its_page() {
    let page = fs::read_to_string(root().join("docs/formats/state.md")).unwrap();
    let mut options = layout::STATE_FILESYSTEM.iter();
    options.find(|it| **it == "-O").expect("features are named");
    let mut asked = options.next().unwrap().split(',');
    assert_eq!(asked.next(), Some("none"), "nothing by default");
    let line: Vec<_> = asked.map(|feature| format!("`{feature}`")).collect();
    let line = format!("\n{}\n", line.join(" "));
    assert!(page.contains(&line), "docs/formats/state.md lacks {line}");
}

#[test]
fn every_page_has_a_row_and_every_release_a_column() {
    let table = table();
    for entry in fs::read_dir(root().join("docs/formats")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(page) = name.strip_suffix(".md").filter(|page| *page != "README") {
            let link = format!("[{page}]({name})");
            let named = table
                .rows
                .keys()
                .any(|(format, _)| format.starts_with(&link));
            assert!(named, "{name} has no row");
        }
    }
    for release in releases() {
        assert!(table.releases.contains(&release), "{release} has no column");
    }
}
