//! A small OCI image around a program built from Go modules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::go;
use crate::arch::{Architecture, Names as _};
use crate::recipe::ImageSource;
use crate::sources::oci::Image;
use crate::workshop::cache::KeyBuilder;
use crate::workshop::{Step, Workshop};

const PASSWD: &str =
    "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Builds the program and puts it into an archive under every name; gives the archive's path in
/// the cache.
///
/// # Errors
///
/// If the program does not build, or a path in the image is not one that an archive can hold.
pub async fn build(
    workshop: &Workshop,
    source: &ImageSource,
    architecture: Architecture,
) -> Result<PathBuf> {
    let program = go::build(workshop, &source.program, architecture).await?;
    let key = KeyBuilder::new("oci-image 2")
        .value("architecture", architecture.debian())
        .value("names", source.names.join("\n"))
        .value("directories", source.directories.join("\n"))
        .value("entry point", entry_point(source))
        .file("program", &program)?
        .finish();
    let made = workshop
        .step(
            "oci-image",
            "OCI image",
            &key,
            async |folder: &Path, _: &Step| {
                let content = std::fs::read(&program)
                    .with_context(|| format!("cannot read {}", program.display()))?;
                let archive = image(source, architecture, content).archive()?;
                let file = folder.join("image.tar");
                std::fs::write(&file, archive)
                    .with_context(|| format!("cannot write {}", file.display()))
            },
        )
        .await?;
    Ok(made.join("image.tar"))
}

fn entry_point(source: &ImageSource) -> String {
    let name = source.program.modules.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn image(source: &ImageSource, architecture: Architecture, program: Vec<u8>) -> Image {
    let name = entry_point(source);
    let mut directories = BTreeMap::from([("etc".to_owned(), 0o755)]);
    for directory in &source.directories {
        let mode = if directory == "/tmp" { 0o1777 } else { 0o755 };
        let mut path = String::new();
        for part in directory.split('/').filter(|part| !part.is_empty()) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            directories.entry(path.clone()).or_insert(0o755);
        }
        directories.insert(path, mode);
    }
    Image {
        architecture: architecture.debian().to_owned(),
        names: source.names.clone(),
        entrypoint: format!("/{name}"),
        files: BTreeMap::from([
            ("etc/group".to_owned(), (0o644, GROUP.into())),
            ("etc/passwd".to_owned(), (0o644, PASSWD.into())),
            (name, (0o755, program)),
        ]),
        directories,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::GoSource;

    #[test]
    fn parents_of_directories_are_there_too() {
        let source = ImageSource {
            program: GoSource {
                modules: "/modules/pause".into(),
                package: ".".into(),
                ldflags: Vec::new(),
                tags: Vec::new(),
            },
            names: vec!["registry.example/pause:1".into()],
            directories: vec!["/usr/local/bin".into(), "/tmp".into()],
        };
        let image = image(&source, Architecture::Aarch64, Vec::new());
        let paths: Vec<_> = image
            .directories
            .iter()
            .map(|(path, mode)| (path.as_str(), *mode))
            .collect();
        assert_eq!(
            paths,
            [
                ("etc", 0o755),
                ("tmp", 0o1777),
                ("usr", 0o755),
                ("usr/local", 0o755),
                ("usr/local/bin", 0o755)
            ]
        );
        assert_eq!(image.entrypoint, "/pause");
        assert_eq!(image.architecture, "arm64");
    }
}
