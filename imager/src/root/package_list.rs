//! The list of what is in a root: `/usr/lib/sternpost/packages.json` in the image, and
//! packages.json beside it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::debian::lock::Package;
use crate::sources::address::shown;

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Listed {
    Package {
        name: String,
        version: String,
        /// `amd64`, `arm64` or `all`.
        architecture: String,
        /// Of the .deb, hexadecimal.
        sha256: String,
    },
    /// An artefact of the recipe.
    Artefact {
        /// Its name in the recipe.
        name: String,
        /// Where it came from, see [`crate::sources::Found`].
        source: String,
        /// Of the file in the image, hexadecimal.
        sha256: String,
    },
}

impl From<&Package> for Listed {
    fn from(package: &Package) -> Self {
        Self::Package {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            sha256: package.sha256.clone(),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package {
                name,
                version,
                architecture,
                ..
            } => write!(f, "{name} {version} {architecture}"),
            Self::Artefact { name, source, .. } => write!(f, "{name} {}", shown(source)),
        }
    }
}

/// The list as the image and the outputs have it.
pub fn to_json(list: &[Listed]) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(list)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_and_artefacts_are_told_apart() {
        let list = [
            Listed::Package {
                name: "bash".into(),
                version: "5.2.37-2+b5".into(),
                architecture: "amd64".into(),
                sha256: "00".into(),
            },
            Listed::Artefact {
                name: "kubelet".into(),
                source: "go:k8s.io/kubernetes/cmd/kubelet@v1.36.3".into(),
                sha256: "11".into(),
            },
        ];
        let read: Vec<Listed> = serde_json::from_str(&to_json(&list).unwrap()).unwrap();
        assert_eq!(read, list);
        assert_eq!(list[0].to_string(), "bash 5.2.37-2+b5 amd64");
        assert_eq!(
            list[1].to_string(),
            "kubelet go:k8s.io/kubernetes/cmd/kubelet@v1.36.3"
        );
    }
}
