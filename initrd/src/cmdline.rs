//! The kernel's command line: ours to the letter, or the start ends. Pure.
//!
//! This finds what was added, and cannot be what keeps it out: a word such as `rdinit=` would start another program in
//! place of this one. Kept out it is before: the loader gives the UKI no load options and no device, and its stub is made
//! deaf to SMBIOS (imager/src/boot/stub.rs). All of it: docs/explanation/boot-chain.md, "Trust".

use boot_core::RootHash;

/// What the command line says about the root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// `sternpost.root=HASH`: a verified partition.
    Verity(RootHash),
    /// `sternpost.recovery`: a file in the initramfs.
    Recovery,
}

/// Why a command line is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// The kernel was given other words than the initramfs was built with.
    #[error("the kernel was started with {kernel:?}, but the image was built with {image:?}")]
    Differs {
        /// /proc/cmdline.
        kernel: String,
        /// /sternpost/cmdline.
        image: String,
    },
    /// Neither or both of `sternpost.root=` and `sternpost.recovery`.
    #[error("it must have exactly one of sternpost.root=HASH and sternpost.recovery")]
    Root,
    /// Not a SHA-256.
    #[error("sternpost.root={0:?} is not 64 lower-case hexadecimal digits")]
    Hash(String),
}

/// Compares what the kernel was given with what the image was built with, and takes the root from it.
///
/// # Errors
/// When they differ, or say nothing clear about the root.
pub fn check(kernel: &str, image: &str) -> Result<Root, CmdlineError> {
    let (kernel, image) = (trim(kernel), trim(image));
    if kernel != image {
        return Err(CmdlineError::Differs {
            kernel: kernel.to_owned(),
            image: image.to_owned(),
        });
    }
    let mut found =
        image
            .split_whitespace()
            .filter_map(|word| match word.strip_prefix("sternpost.root=") {
                Some(hash) => Some(root_hash(hash).map(Root::Verity)),
                None => (word == "sternpost.recovery").then_some(Ok(Root::Recovery)),
            });
    match (found.next(), found.next()) {
        (Some(root), None) => root,
        _ => Err(CmdlineError::Root),
    }
}

/// A hash as it is written by everybody: in lower case.
fn root_hash(text: &str) -> Result<RootHash, CmdlineError> {
    let hash = text.parse().ok();
    hash.filter(|hash: &RootHash| hash.to_string() == text)
        .ok_or_else(|| CmdlineError::Hash(text.to_owned()))
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_added_word_is_refused() {
        let hash = RootHash([0xaa; 32]);
        let image = format!("console=ttyS0 sternpost.root={hash}");
        assert_eq!(check(&format!("{image}\n"), &image), Ok(Root::Verity(hash)));
        assert!(matches!(
            check(&format!("{image} init=/bin/sh"), &image),
            Err(CmdlineError::Differs { .. })
        ));
    }

    #[test]
    fn the_root_must_be_clear() {
        for (line, expected) in [
            ("quiet", CmdlineError::Root),
            ("sternpost.recovery sternpost.recovery", CmdlineError::Root),
            ("sternpost.root=abc", CmdlineError::Hash("abc".into())),
        ] {
            assert_eq!(check(line, line), Err(expected));
        }
        assert_eq!(
            check("sternpost.recovery", "sternpost.recovery\n"),
            Ok(Root::Recovery)
        );
    }
}
