//! Recipes: docs/schemas/recipe.schema.json.
//!
//! - what is wrong is said with a place in the file;
//! - what is right names blobs of the cache by digests alone, and places in the image by absolute paths.
#![no_main]

use std::fs::write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use imager::recipe::{Recipe, Source};
use imager::workshop::cache::is_sha256;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// Holds the recipe, and one that it may extend.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let base = "product = \"box\"\n[kernel]\nx86_64 = \"linux\"\n[packages]\ncommon = [\"bash\"]\n";
    write(folder.path().join("minimal.toml"), base).expect("there is room");
    folder
});
static PATH: LazyLock<PathBuf> = LazyLock::new(|| FOLDER.path().join("recipe.toml"));

/// Files without an end, on the machine that the fuzzer runs on.
fn leads_away(text: &str) -> bool {
    text.contains("/dev") || text.contains("/proc")
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if leads_away(text) {
        return;
    }
    write(&*PATH, text).expect("there is room");
    let path: &Path = &PATH;
    let recipe = match Recipe::load(path) {
        Ok(recipe) => recipe,
        Err(error) => {
            let error = format!("{error:#}");
            assert!(
                error.contains("mistake") || error.contains("cannot read"),
                "{error}"
            );
            let lines = text.matches('\n').count() + 1;
            for mistake in error.lines().skip(1).filter(|line| line.contains(".toml:")) {
                let place = mistake.split(".toml:").nth(1).unwrap_or_default();
                let line = place
                    .split(':')
                    .next()
                    .and_then(|line| line.parse::<usize>().ok());
                assert!(
                    line.is_some_and(|line| (1..=lines).contains(&line)),
                    "{mistake}"
                );
            }
            return;
        }
    };
    assert!(!recipe.product.is_empty() && !recipe.version.is_empty() && recipe.version.len() <= 32);
    assert!(recipe.headroom.is_finite() && recipe.headroom >= 1.0);
    for artefact in &recipe.artefacts {
        assert!(artefact.path.starts_with('/') && !artefact.path.contains("/../"));
        assert!(!artefact.sources.is_empty() && artefact.mode <= 0o7777);
        for source in &artefact.sources {
            if let Source::Url { sha256, .. } | Source::File { sha256, .. } = source {
                assert!(sha256.values().all(|digest| is_sha256(digest)));
            }
        }
    }
    for persist in &recipe.persist {
        assert!(persist.path.starts_with('/') && !persist.path.contains("/../"));
    }
});
