//! Files on the host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::workshop::cache::hash_file;

/// A file that a recipe names: it has to have that digest.
pub fn given(path: &Path, sha256: &str) -> Result<PathBuf> {
    let what = || format!("cannot read {}", path.display());
    let path = path.canonicalize().with_context(what)?;
    let found = hash_file(&path).with_context(what)?;
    ensure!(
        found == sha256,
        "{} has the SHA-256 {found}, not {sha256}",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workshop::cache::hash_bytes;

    #[test]
    fn only_what_matches_is_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let (right, wrong) = (hash_bytes(b"content"), hash_bytes(b"other"));
        assert!(given(file.path(), &right).is_ok());
        let error = given(file.path(), &wrong).unwrap_err().to_string();
        assert!(error.contains(&right) && error.contains(&wrong), "{error}");
    }
}
