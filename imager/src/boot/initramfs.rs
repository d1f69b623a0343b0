//! The initramfs: the initrd agent, the kernel's command line, the modules it may need.
//!
//! ```text
//! /init                        the agent (static)
//! /dev /proc /sys /run         empty directories
//! /dev/console                 the node that the kernel opens for PID 1
//! /sternpost/cmdline           the same text as in the UKI
//! /sternpost/modules.json      which modules there are, who needs whom, what they answer to
//! /sternpost/modules/NAME.ko   uncompressed (the archive is compressed as a whole, which packs better)
//! /sternpost/root.erofs        recovery only: the recovery system
//! ```
//!
//! The archive is `newc`, with every time zero, owner root and inodes numbered in order, so equal
//! inputs give equal bytes. It is packed as one zstd frame.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// A `newc` archive in the making.
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

/// File type and permission bits of an archive member.
#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File { mode: u32 },
    Character { major: u32, minor: u32 },
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            inode: 0,
        }
    }

    /// Adds a directory; `name` has no leading slash.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.member(name, Kind::Directory, &[])
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.member(name, Kind::File { mode }, content)
    }

    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.member(name, Kind::Character { major, minor }, &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.header("TRAILER!!!", 0, 1, 0, (0, 0), 0);
        Ok(self.bytes)
    }

    fn member(&mut self, name: &str, kind: Kind, content: &[u8]) -> Result<()> {
        let (mode, links, device) = match kind {
            Kind::Directory => (0o040_755, 2, (0, 0)),
            Kind::File { mode } => (0o100_000 | mode, 1, (0, 0)),
            Kind::Character { major, minor } => (0o020_600, 1, (major, minor)),
        };
        let size = u32::try_from(content.len())
            .ok()
            .with_context(|| format!("{name} is larger than a cpio archive can hold (4 GiB)"))?;
        self.inode += 1;
        self.header(name, self.inode, links, mode, device, size);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn header(
        &mut self,
        name: &str,
        inode: u32,
        links: u32,
        mode: u32,
        device: (u32, u32),
        size: u32,
    ) {
        let name_size = name.len() as u32 + 1;
        let fields = [
            inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// What goes into an initramfs.
pub struct Contents<'a> {
    pub agent: &'a [u8],
    /// The kernel's command line, no newline at its end.
    pub cmdline: &'a str,
    /// The index that the agent reads.
    pub modules_json: &'a [u8],
    /// Modules by name, uncompressed.
    pub modules: &'a [(String, Vec<u8>)],
    /// The recovery system, for a recovery initramfs.
    pub recovery_root: Option<&'a Path>,
}

/// Builds the archive, uncompressed.
///
/// # Errors
/// The agent is not a program, or the recovery root cannot be read.
pub fn archive(contents: &Contents<'_>) -> Result<Vec<u8>> {
    ensure!(
        contents.agent.starts_with(b"\x7fELF"),
        "the initrd agent is not an ELF program"
    );
    let mut archive = Archive::new();
    for directory in [
        "dev",
        "proc",
        "run",
        "sternpost",
        "sternpost/modules",
        "sys",
    ] {
        archive.directory(directory)?;
    }
    archive.character_device("dev/console", 5, 1)?;
    archive.character_device("dev/kmsg", 1, 11)?;
    archive.file("init", 0o755, contents.agent)?;
    archive.file("sternpost/cmdline", 0o644, contents.cmdline.as_bytes())?;
    archive.file("sternpost/modules.json", 0o644, contents.modules_json)?;
    for (name, module) in contents.modules {
        archive.file(&format!("sternpost/modules/{name}.ko"), 0o644, module)?;
    }
    if let Some(root) = contents.recovery_root {
        let bytes = std::fs::read(root)
            .with_context(|| format!("reading the recovery root {}", root.display()))?;
        archive.file("sternpost/root.erofs", 0o644, &bytes)?;
    }
    archive.finish()
}

/// Packs an archive as one zstd frame that the kernel's decoder takes.
pub fn compress(archive: &[u8], level: i32) -> Result<Vec<u8>> {
    let mut encoder = zstd::bulk::Compressor::new(level).context("starting zstd")?;
    encoder.include_checksum(true).context("setting up zstd")?;
    encoder
        .compress(archive)
        .context("compressing the initramfs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents<'a>(modules: &'a [(String, Vec<u8>)]) -> Contents<'a> {
        Contents {
            agent: b"\x7fELFagent",
            cmdline: "console=ttyS0",
            modules_json: b"{}",
            modules,
            recovery_root: None,
        }
    }

    #[test]
    fn members_are_aligned_and_named() {
        let modules = vec![("erofs".to_owned(), vec![1, 2, 3])];
        let bytes = archive(&contents(&modules)).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut names = Vec::new();
        let mut at = 0;
        loop {
            let field = |n: usize| {
                let from = at + 6 + n * 8;
                usize::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16)
                    .unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name_size) = (field(6), field(11));
            let name =
                String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            at = (at + 110 + name_size).next_multiple_of(4);
            if name == "sternpost/modules/erofs.ko" {
                assert_eq!(&bytes[at..at + size], [1, 2, 3]);
            }
            at = (at + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
            names.push(name);
        }
        assert_eq!(at, bytes.len());
        assert!(names.contains(&"init".to_owned()), "{names:?}");
        assert!(
            names.contains(&"sternpost/modules/erofs.ko".to_owned()),
            "{names:?}"
        );
    }

    #[test]
    fn equal_inputs_give_equal_bytes() {
        let modules = vec![("a".to_owned(), vec![7; 100])];
        let one = compress(&archive(&contents(&modules)).unwrap(), 3).unwrap();
        let two = compress(&archive(&contents(&modules)).unwrap(), 3).unwrap();
        assert_eq!(one, two);
        assert_eq!(
            zstd::decode_all(&one[..]).unwrap(),
            archive(&contents(&modules)).unwrap()
        );
    }

    #[test]
    fn an_agent_that_is_no_program_is_refused() {
        let mut wrong = contents(&[]);
        wrong.agent = b"#!/bin/sh";
        assert!(archive(&wrong).is_err());
    }
}
