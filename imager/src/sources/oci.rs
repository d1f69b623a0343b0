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
//! Sources: OCI Image Specification 1.1 (layout, index, manifest, config), POSIX.1-2017 pax
//! (ustar header). Times are zero, owners are root, entries come in the order of their names.

use std::collections::BTreeMap;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why an archive could not be made.
#[derive(Debug, Error)]
pub enum OciError {
    /// ustar holds names of at most 100 bytes without tricks.
    #[error("the path {0:?} is longer than the 100 bytes that an entry of the archive can hold")]
    LongPath(String),
    /// ustar holds files below 8 GiB.
    #[error("{0} is larger than an entry of the archive can be")]
    LargeFile(String),
    /// An image without a name could not be found by anybody.
    #[error("the image has no name; give at least one, such as registry.k8s.io/pause:3.10.2")]
    NoName,
}

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
    ///
    /// If the image has no name, or holds a path or a file that ustar cannot.
    pub fn archive(&self) -> Result<Vec<u8>, OciError> {
        if self.names.is_empty() {
            return Err(OciError::NoName);
        }
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
        let mut tar = Tar::default();
        tar.directory("blobs", 0o755)?;
        tar.directory("blobs/sha256", 0o755)?;
        for (path, blob) in &blobs {
            tar.file(path, 0o644, blob)?;
        }
        tar.file("index.json", 0o644, &index)?;
        tar.file("oci-layout", 0o644, LAYOUT.as_bytes())?;
        Ok(tar.finish())
    }

    fn layer(&self) -> Result<Vec<u8>, OciError> {
        let mut tar = Tar::default();
        for (path, mode) in &self.directories {
            tar.directory(path, *mode)?;
        }
        for (path, (mode, content)) in &self.files {
            tar.file(path, *mode, content)?;
        }
        Ok(tar.finish())
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

/// A ustar archive under construction.
#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
}

const BLOCK: usize = 512;

impl Tar {
    fn directory(&mut self, path: &str, mode: u32) -> Result<(), OciError> {
        self.header(&format!("{path}/"), mode, 0, b'5')
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), OciError> {
        self.header(path, mode, content.len(), b'0')?;
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) -> Result<(), OciError> {
        if path.len() > 100 {
            return Err(OciError::LongPath(path.to_owned()));
        }
        if size >= 1 << 33 {
            return Err(OciError::LargeFile(path.to_owned()));
        }
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
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
        assert!(matches!(unnamed.archive(), Err(OciError::NoName)));
    }
}
