//! Files on the host.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::cache::hash_file;

/// Checks that `path` has one of the SHA-256s that the artefact may have.
///
/// # Errors
///
/// If it cannot be read, or is another file.
pub fn check(path: &Path, sha256: &[&str]) -> Result<()> {
    let found = hash_file(path).with_context(|| format!("cannot read {}", path.display()))?;
    if sha256.contains(&found.as_str()) {
        return Ok(());
    }
    bail!(
        "{} has SHA-256 {found}; the recipe wants {}",
        path.display(),
        sha256.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_that_was_meant_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&path, &["0", abc]).unwrap();
        assert!(check(&path, &["0"]).unwrap_err().to_string().contains(abc));
        assert!(check(&folder.path().join("none"), &[abc]).is_err());
    }
}
