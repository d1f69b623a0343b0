//! No promise without a test: everything that docs/reliability.md names beside a promise exists.

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

/// Whether `text` has a test with this name, and not a mere function.
fn has_test(text: &str, name: &str) -> bool {
    let declared = format!("fn {name}(");
    text.match_indices(&declared).any(|(at, _)| {
        // Above it, attributes and comments only.
        let line = text[..at].rfind('\n').unwrap_or_default();
        let above = text[..line].lines().rev().map(str::trim);
        above
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
            .any(|line| line == "#[test]")
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
    let promises = promises(&read("docs/reliability.md"));
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

#[test]
fn a_test_is_told_from_a_function() {
    let text = "#[test]\nfn tried() {}\n\nfn helper() {}\n";
    assert!(has_test(text, "tried"));
    assert!(!has_test(text, "helper") && !has_test(text, "trie"));
}
