//! Locks: which packages, exactly.
use serde::{Deserialize, Serialize};

/// One package, pinned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Debian's name.
    pub name: String,
    /// Debian's version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Of the .deb, hexadecimal.
    pub sha256: String,
    /// Of the .deb, in bytes.
    pub size: u64,
    /// Where the .deb was when it was pinned.
    pub url: String,
}
