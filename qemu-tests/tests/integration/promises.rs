//! No promise without a test: everything that docs/reliability.md names beside a promise exists, and runs; so do all other
//! tests and scenarios that it names. Of each scenario docs/scenario-runs.md says how it last ended.

use std::path::{Path, PathBuf};

use qemu_tests::scenarios::ALL;

/// The rows of the page's table of promises: the promise, and the names beside it.
fn promises(page: &str) -> Vec<(String, Vec<String>)> {
    let table = page
        .split("## ")
        .find(|section| section.starts_with("Promises"))
        .expect("the page has promises");
    let rows = table.lines().filter_map(|line| {
        let (promise, shown_by) = line.strip_prefix("| ")?.split_once(" | ")?;
        let names = shown_by.split('`').skip(1).step_by(2).map(str::to_owned);
        Some((promise.to_owned(), names.collect()))
    });
    // Without the table's head.
    rows.skip(2).collect()
}

/// Every Rust file of the workspace.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// What the page has in backquotes and is made of words, at least four, with `between` between them: the name of a test,
/// or of a scenario.
fn names(page: &str, between: char) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| {
        name.matches(between).count() >= 3
            && name
                .chars()
                .all(|c| c == between || c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    quoted.filter(is_name).collect()
}

/// Whether `text` has a test with this name that runs, and not a mere function.
fn has_test(text: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    text.match_indices(&declared).any(|(at, _)| {
        // Above it, attributes and comments only.
        let line = text[..at].rfind('\n').unwrap_or_default();
        let above = text[..line].lines().rev().map(str::trim);
        let attributes: Vec<_> = above
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .collect();
        let is_ignored = attributes.iter().any(|line| line.starts_with("#[ignore"));
        attributes.contains(&"#[test]") && !is_ignored
    })
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("STERNPOST_SOURCE"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let mut files = Vec::new();
    sources(root, &mut files);
    let texts: Vec<String> = files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let invariants = read("qemu-tests/crash-sim/src/invariants.rs");
    let makefile = read("Makefile");
    let page = read("docs/reliability.md");
    for name in names(&page, '_') {
        let exists = texts.iter().any(|text| has_test(text, name));
        assert!(exists, "there is no test `{name}`");
    }
    for name in names(&page, '-') {
        // Pieces of a slot have their names from two parts.
        let parts = ["first-slot-", "other-slot-"];
        let own = parts.iter().find_map(|slot| name.strip_prefix(slot));
        let quoted = format!("\"{}\"", own.unwrap_or(name));
        let exists = texts.iter().any(|text| text.contains(&quoted));
        assert!(exists, "there is no scenario or other thing `{name}`");
    }
    let promises = promises(&page);
    assert!(promises.len() > 10, "the table was not found");
    for (promise, names) in promises {
        assert!(!names.is_empty(), "nothing shows that: {promise}");
        for name in names {
            let exists = match name.strip_prefix("make ") {
                Some(target) => makefile.contains(&format!("\n{target}:")),
                None => {
                    ALL.iter().any(|scenario| scenario.name == name)
                        || invariants.contains(&format!("\"{name}\""))
                        || texts.iter().any(|text| has_test(text, &name))
                }
            };
            assert!(exists, "there is no test `{name}` for: {promise}");
        }
    }
}

/// A scenario shows nothing until it has run. The gate's run at every change; of the others `make ledger` says when they
/// did, and what it said last is kept with the code.
#[test]
fn the_last_run_of_every_scenario_is_kept_and_none_failed() {
    let page = Path::new(env!("STERNPOST_SOURCE")).join("docs/scenario-runs.md");
    let page = std::fs::read_to_string(page).unwrap();
    for scenario in ALL {
        let name = format!("| `{}` |", scenario.name);
        let row = page.lines().find(|line| line.starts_with(&name));
        let Some(row) = row else {
            panic!(
                "{} is not in docs/scenario-runs.md (make ledger)",
                scenario.name
            );
        };
        assert!(!row.contains("failed"), "{row}");
    }
}

#[test]
fn a_test_is_told_from_a_function() {
    let text =
        "#[test]\nfn tried() {}\n\nfn helper() {}\n\n#[test]\n#[ignore = \"slow\"]\nfn slow() {}\n";
    assert!(has_test(text, "tried"));
    assert!(
        !["helper", "trie", "slow"]
            .iter()
            .any(|name| has_test(text, name))
    );
}
