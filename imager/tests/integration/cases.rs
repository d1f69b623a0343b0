//! What is said about recipes that people write: a file each in `tests/cases/`, those in `right` as they are in a
//! pipeline, those in `wrong` wrong, or odd, in exactly one way; `beside` holds what they name.
//!
//! What is to be said stands at the head of the file: `# expect: nothing`, or `# expect: 7:12 error: MESSAGE` (or
//! `warning`), with line and column in this very file. Places are said from the folder of the cases.

use std::fs;
use std::path::{Path, PathBuf};

use imager::recipe::Recipe;

fn cases() -> PathBuf {
    let cases = Path::new(env!("STERNPOST_SOURCE")).join("imager/tests/cases");
    cases.canonicalize().unwrap()
}

/// The recipes of one folder, by name.
fn recipes(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(cases().join(folder)).unwrap();
    let mut all: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    all.sort();
    all
}

/// What the head of a file says.
fn expected(text: &str) -> Vec<&str> {
    text.lines()
        .map_while(|line| line.strip_prefix('#'))
        .filter_map(|line| line.trim().strip_prefix("expect: "))
        .collect()
}

/// What is said about a recipe, in the form in which a file expects it.
fn said(path: &Path) -> Vec<String> {
    let all = match Recipe::load(path) {
        Ok(recipe) => recipe.warnings,
        Err(error) => {
            let error = error.to_string();
            error
                .lines()
                .skip(1)
                .map(|line| line.trim().to_owned())
                .collect()
        }
    };
    if all.is_empty() {
        return vec!["nothing".to_owned()];
    }
    let (file, folder) = (
        format!("{}:", path.display()),
        format!("{}/", cases().display()),
    );
    let one = |line: String| {
        let place = line.strip_prefix(&file).unwrap_or(&line).to_owned();
        let (place, message) = place.split_once(": ").unwrap_or((&place, ""));
        let level = if message.starts_with("warning: ") {
            ""
        } else {
            "error: "
        };
        format!("{place} {level}{message}").replace(&folder, "")
    };
    all.into_iter().map(one).collect()
}

#[test]
fn every_recipe_says_what_its_head_expects() {
    let mut wrong = Vec::new();
    for (folder, least) in [("right", 25), ("wrong", 65)] {
        let recipes = recipes(folder);
        assert!(
            recipes.len() >= least,
            "{} files in {folder}",
            recipes.len()
        );
        for path in recipes {
            let text = fs::read_to_string(&path).unwrap();
            let (expected, said) = (expected(&text), said(&path));
            let fits = match folder {
                "right" => expected == ["nothing"],
                _ => expected.len() == 1 && expected != ["nothing"],
            };
            if !fits {
                let name = path.display();
                wrong.push(format!(
                    "{name}: one line `# expect: …` is wanted at its head"
                ));
            }
            if expected != said {
                let said = said.join("\n# expect: ");
                wrong.push(format!("{}:\n# expect: {said}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
