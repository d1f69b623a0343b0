//! What is said about profiles that people write: a file each in `tests/cases/`, those in `right` as sites have them,
//! those in `wrong` wrong, or odd, in exactly one way.
//!
//! What is to be said stands at the head of the file, a line for each message: `# expect: nothing`, or
//! `# expect: 7:12 error: MESSAGE` (or `warning`), with line and column in this very file. A message that no file has
//! shown fails as well: whoever adds a check adds a file.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use profile::{Diagnostic, Diagnostics, ImageFacts, MachineFacts, Reading};

fn here() -> PathBuf {
    PathBuf::from(env!("STERNPOST_SOURCE")).join("profile")
}

fn image() -> ImageFacts {
    serde_json::from_value(serde_json::json!({
        "product": "demo", "version": "1.0.0", "architecture": "x86_64", "security_version": 1,
        "state_epoch": 1, "build_time": 1_760_000_000, "vm": ["none"], "kernel": "6.12",
        "kubernetes": {"distribution": "kubeadm", "version": "1.36.3"},
    }))
    .unwrap()
}

/// The files of one folder and their texts.
fn cases(folder: &str) -> BTreeMap<String, String> {
    let files = fs::read_dir(here().join("tests/cases").join(folder)).unwrap();
    files
        .map(|file| file.unwrap())
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            assert!(name.ends_with(".yaml"), "{folder}/{name} is no profile");
            (name, fs::read_to_string(file.path()).unwrap())
        })
        .collect()
}

/// What the head of a file says.
fn expected(text: &str) -> Vec<&str> {
    text.lines()
        .map_while(|line| line.strip_prefix('#'))
        .filter_map(|line| line.trim().strip_prefix("expect: "))
        .collect()
}

/// What is said about it, and the profile renders where it can be used.
fn read(text: &str) -> Diagnostics {
    match profile::check(text, "p.yaml", Reading::For(&image())) {
        Ok((profile, said)) => {
            let machine = MachineFacts {
                machine_id: "0f3b5c1a2d4e46788a9bacbdcedfe0f1".into(),
                boot_id: "b".into(),
            };
            profile::render(&profile, &image(), &machine).unwrap();
            said
        }
        Err(said) => said,
    }
}

/// In the form in which a file expects it.
fn said(text: &str) -> Vec<String> {
    let found = read(text);
    let line = |level: &'static str| {
        move |it: &Diagnostic| (it.line, it.column, format!("{level}: {}", it.message))
    };
    let errors = found.errors.iter().map(line("error"));
    let mut all: Vec<_> = errors
        .chain(found.warnings.iter().map(line("warning")))
        .collect();
    all.sort();
    if all.is_empty() {
        return vec!["nothing".to_owned()];
    }
    all.into_iter()
        .map(|(line, column, message)| format!("{line}:{column} {message}"))
        .collect()
}

#[test]
fn every_case_says_what_its_head_expects() {
    let mut wrong = Vec::new();
    for (folder, least) in [("right", 50), ("wrong", 50)] {
        let cases = cases(folder);
        assert!(cases.len() >= least, "{} files in {folder}", cases.len());
        for (name, text) in cases {
            let (expected, said) = (expected(&text), said(&text));
            let fits = match folder {
                "right" => expected == ["nothing"],
                _ => expected.len() == 1 && expected != ["nothing"],
            };
            if !fits {
                wrong.push(format!(
                    "{folder}/{name}: one line `# expect: …` is wanted at its head"
                ));
            }
            if expected != said {
                wrong.push(format!(
                    "{folder}/{name}:\n# expect: {}",
                    said.join("\n# expect: ")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text that stands in the code for what is said, its values left out: what is between braces.
fn fixed_parts(literal: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    let literal = literal.replace("{{", "\u{1}").replace("}}", "\u{2}");
    for c in literal.chars() {
        match c {
            '{' => {
                depth += 1;
                parts.push(String::new());
            }
            '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => parts.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    parts
        .iter()
        .map(|it| it.replace('\u{1}', "{").replace('\u{2}', "}"))
        .collect()
}

/// Whether a text is made of these parts, in this order.
fn is_made_of(text: &str, parts: &[String]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| match rest.find(part.as_str()) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// The literals of a source file that are sentences, before its tests.
fn sentences(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut found = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // 'x', '"' and '\''
            '\'' => {
                let rest: String = chars.clone().take(3).collect();
                let length = if rest.starts_with('\\') { 3 } else { 2 };
                if rest.chars().nth(length - 1) == Some('\'') {
                    chars.by_ref().take(length).for_each(drop);
                }
            }
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => match chars.next() {
                            Some('\n') => while chars.next_if(|it| it.is_whitespace()).is_some() {},
                            Some(c) => literal.push(c),
                            None => break,
                        },
                        c => literal.push(c),
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found.retain(|it| it.split_whitespace().count() > 2);
    found
}

/// What no file shows that says one thing: what the parser says in other words before; what is said beside an anchor,
/// about a file of 256 KiB, about another image; an example.
const NOT_SHOWN: [&str; 9] = [
    "this list has no end",
    "this mapping has no end",
    "a value is missing here",
    "the file ends in the middle of a value",
    "unexpected text after the profile",
    "aliases (`*name`) are not used in profiles",
    "this file has {} bytes; a profile has at most {MAX_BYTES}",
    "the {what} `{wanted}` is not in this image, which has none",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvb3R5IGZvciBhIHN0ZXJucG9zdCBwcm9maWxl me@example",
];

#[test]
fn every_message_of_the_checks_is_shown_by_a_case() {
    let texts: BTreeSet<String> = ["right", "wrong"]
        .into_iter()
        .flat_map(cases)
        .map(|it| it.1)
        .collect();
    let shown: Vec<String> = texts
        .iter()
        .map(|text| read(text))
        .flat_map(|it| it.errors.into_iter().chain(it.warnings))
        .flat_map(|it| [Some(it.message), it.help])
        .flatten()
        .collect();
    let sources = [
        "schema/addresses.rs",
        "schema/check.rs",
        "schema/interfaces.rs",
        "schema/names.rs",
        "schema/servers.rs",
        "schema/tree.rs",
        "schema/validate.rs",
        "scalar/bundle_url.rs",
        "scalar/cidr.rs",
        "scalar/duration.rs",
        "scalar/interface.rs",
        "scalar/mod.rs",
        "scalar/name.rs",
        "scalar/ssh_key.rs",
        "scalar/unit.rs",
        "scalar/user.rs",
        "kubernetes/kubeadm/check.rs",
    ];
    let mut missing = Vec::new();
    for source in sources {
        for sentence in sentences(&here().join("src").join(source)) {
            let parts = fixed_parts(&sentence);
            let is_shown = shown.iter().any(|it| is_made_of(it, &parts));
            if !is_shown && !NOT_SHOWN.contains(&sentence.as_str()) {
                missing.push(format!("{source}: {sentence}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no case in tests/cases shows\n{}",
        missing.join("\n")
    );
}
