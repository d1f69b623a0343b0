//! Files on the host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::cache::hash_file;

/// A file that somebody names: it has to have one of the digests.
///
/// # Errors
///
/// It cannot be read, or has none of them.
pub fn given(path: &Path, digests: &[&str]) -> Result<PathBuf> {
    let path = path
        .canonicalize()
        .with_context(|| format!("cannot read {}", path.display()))?;
    let found = hash_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        digests.contains(&found.as_str()),
        "{} has the SHA-256 {found}, not {}",
        path.display(),
        digests.join(" or ")
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::hash_bytes;

    #[test]
    fn only_what_matches_is_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "content").unwrap();
        let right = hash_bytes(b"content");
        let wrong = hash_bytes(b"other");
        assert!(given(file.path(), &[&right]).is_ok());
        assert!(given(file.path(), &[&wrong, &right]).is_ok());
        assert!(given(file.path(), &[]).is_err());
        let error = given(file.path(), &[&wrong]).unwrap_err().to_string();
        assert!(error.contains(&right) && error.contains(&wrong), "{error}");
    }
}
