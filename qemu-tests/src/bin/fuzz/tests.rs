//! Every format has a fuzz target, and what is said of the targets is true.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};

use qemu_tests::workspace;
use toml::Value;

fn read(path: &str) -> String {
    let path = workspace().join(path);
    read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parsed(path: &str) -> Value {
    toml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of a folder's files that end in `extension`.
fn names(folder: &str, extension: &str) -> Vec<String> {
    let files = read_dir(workspace().join(folder)).unwrap();
    let named = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    named
        .filter_map(|name| name.strip_suffix(extension).map(str::to_owned))
        .collect()
}

fn targets() -> Vec<String> {
    names("qemu-tests/fuzz/fuzz_targets", ".rs")
}

#[test]
fn every_format_has_a_target() {
    let all: String = targets()
        .iter()
        .map(|name| read(&format!("qemu-tests/fuzz/fuzz_targets/{name}.rs")))
        .collect();
    for page in names("docs/formats", ".md") {
        let named = all.contains(&format!("docs/formats/{page}.md"));
        assert!(
            named || page == "README",
            "no fuzz target names docs/formats/{page}.md in its first lines"
        );
    }
}

#[test]
fn every_target_is_built_run_and_explained() {
    let manifest = parsed("qemu-tests/fuzz/Cargo.toml");
    let runs = manifest["package"]["metadata"]["targets"]
        .as_table()
        .unwrap();
    let built = manifest["bin"].as_array().unwrap();
    let reliability = read("docs/reliability.md");
    for name in targets() {
        let is_built = built.iter().any(|bin| bin["name"].as_str() == Some(&name));
        assert!(is_built && runs.contains_key(&name), "{name} is not run");
        let explained = reliability.contains(&format!("\n| `{name}` |"));
        assert!(explained, "docs/reliability.md does not have {name}");
    }
    assert_eq!(runs.len(), targets().len(), "a target has no file");
}

#[test]
fn what_is_fuzzed_is_what_is_shipped() {
    let versions = |path| {
        let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in parsed(path)["package"].as_array().unwrap() {
            let field = |name| package[name].as_str().unwrap().to_owned();
            versions
                .entry(field("name"))
                .or_default()
                .push(field("version"));
        }
        versions
    };
    let shipped = versions("Cargo.lock");
    for (name, fuzzed) in versions("qemu-tests/fuzz/Cargo.lock") {
        let Some(shipped) = shipped.get(&name) else {
            continue;
        };
        assert!(
            fuzzed.iter().all(|version| shipped.contains(version)),
            "{name} is fuzzed in {fuzzed:?} and shipped in {shipped:?}: copy Cargo.lock to qemu-tests/fuzz, and run \
             `cargo metadata` there"
        );
    }
}
