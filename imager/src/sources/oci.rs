//! A small OCI image as one archive, the same bytes every time.
//!
//! Kubernetes wants an image for each of its own programs. Here those programs run from the
//! verified root instead, so one image that holds no more than a pod's first process and some
//! empty directories stands in for all of them, under as many names as are asked for:
//!
//! ```text
//! oci-layout
//! index.json              one descriptor a name, all of the same manifest
//! blobs/sha256/<config>   entry point, PATH, architecture
//! blobs/sha256/<layer>    tar, not compressed: the root filesystem compresses it
//! blobs/sha256/<manifest>
//! ```
//!
//! Source: OCI Image Specification 1.1 (layout, index, manifest, config). Times are zero, owners are root, entries come in the order of their names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::EntryType::{Directory, Regular};

/// What an image holds and what it is called.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// `amd64` or `arm64`, as OCI calls them.
    pub architecture: String,
    /// References that the image is imported under.
    pub names: Vec<String>,
    /// Absolute path of the program that runs when a pod names no other.
    pub entrypoint: String,
    /// Files by path without the leading slash: mode and content.
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    /// Directories by path without the leading slash, with their modes; parents included.
    pub directories: BTreeMap<String, u32>,
}

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const SEARCH_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Image {
    /// The image as an OCI archive, to be read by `ctr images import`.
    ///
    /// # Errors
    /// The image has no name, or holds a path that ustar cannot.
    pub fn archive(&self) -> Result<Vec<u8>> {
        ensure!(
            !self.names.is_empty(),
            "the image has no name; give at least one, such as registry.k8s.io/pause:3.10.2"
        );
        let layer = self.layer()?;
        let config = json!({
            "architecture": self.architecture,
            "config": { "Entrypoint": [self.entrypoint], "Env": [SEARCH_PATH], "WorkingDir": "/" },
            "os": "linux",
            "rootfs": { "diff_ids": [digest(&layer)], "type": "layers" },
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "schemaVersion": 2,
        })
        .to_string()
        .into_bytes();
        let manifests: Vec<_> = self
            .names
            .iter()
            .map(|name| {
                let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
                entry["annotations"] = json!({ "io.containerd.image.name": name });
                entry["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
                entry
            })
            .collect();
        let index = json!({
            "manifests": manifests,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "schemaVersion": 2,
        })
        .to_string()
        .into_bytes();

        let mut blobs = BTreeMap::new();
        for blob in [layer, config, manifest] {
            blobs.insert(format!("blobs/sha256/{}", hex_digest(&blob)), blob);
        }
        let mut archive = tar::Builder::new(Vec::new());
        for path in ["blobs/", "blobs/sha256/"] {
            add(&mut archive, Directory, path, 0o755, &[])?;
        }
        for (path, blob) in &blobs {
            add(&mut archive, Regular, path, 0o644, blob)?;
        }
        add(&mut archive, Regular, "index.json", 0o644, &index)?;
        add(
            &mut archive,
            Regular,
            "oci-layout",
            0o644,
            LAYOUT.as_bytes(),
        )?;
        archive.into_inner().context("ending an OCI image")
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, mode) in &self.directories {
            add(&mut layer, Directory, &format!("{path}/"), *mode, &[])?;
        }
        for (path, (mode, content)) in &self.files {
            add(&mut layer, Regular, path, *mode, content)?;
        }
        layer.into_inner().context("ending a layer of an OCI image")
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_digest(bytes))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    json!({ "digest": digest(bytes), "mediaType": media_type, "size": bytes.len() })
}

/// Adds an entry of root's, of no time.
fn add(
    archive: &mut tar::Builder<Vec<u8>>,
    kind: tar::EntryType,
    path: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(content.len() as u64);
    archive
        .append_data(&mut header, path, content)
        .with_context(|| format!("adding {path} to an OCI image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn image() -> Image {
        Image {
            architecture: "amd64".into(),
            names: vec![
                "registry.example/pause:1".into(),
                "registry.example/etcd:2".into(),
            ],
            entrypoint: "/pause".into(),
            files: BTreeMap::from([("pause".into(), (0o755, b"program".to_vec()))]),
            directories: BTreeMap::from([("etc".into(), 0o755), ("tmp".into(), 0o1777)]),
        }
    }

    #[test]
    fn the_same_image_gives_the_same_bytes() {
        assert_eq!(image().archive().unwrap(), image().archive().unwrap());
    }

    #[test]
    fn every_name_points_at_one_manifest_that_is_in_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        std::fs::write(&archive, image().archive().unwrap()).unwrap();
        let status = Command::new("tar")
            .args(["-C", folder.path().to_str().unwrap(), "-xf"])
            .arg(&archive)
            .status()
            .unwrap();
        assert!(status.success(), "tar refused the archive");
        let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&read("index.json")).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 2);
        for manifest in manifests {
            let digest = manifest["digest"].as_str().unwrap();
            let blob = read(&digest.replace("sha256:", "blobs/sha256/"));
            assert_eq!(
                format!("sha256:{}", hex::encode(Sha256::digest(&blob))),
                digest
            );
            assert_eq!(manifest["size"], blob.len());
        }
    }

    #[test]
    fn an_image_without_a_name_is_refused() {
        let unnamed = Image {
            names: Vec::new(),
            ..image()
        };
        assert!(
            unnamed
                .archive()
                .unwrap_err()
                .to_string()
                .contains("no name")
        );
    }
}
