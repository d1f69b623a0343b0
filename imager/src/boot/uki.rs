//! The unified kernel image and the kernel's command line.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::arch::{Architecture, Names as _};
use crate::boot::stub;
use crate::workshop::tool::run;
use crate::workshop::tools::Tools;

/// What the kernel is told at every boot, before what the recipe adds.
///
/// Panics and lockups end in a reboot; the watchdog that the agent opened is not taken for dead before
/// userland opens it again; systemd neither guesses partitions nor takes credentials from outside.
pub(crate) const COMMON: &[&str] = &[
    "panic=10",
    "oops=panic",
    "softlockup_panic=1",
    "nmi_watchdog=panic",
    "watchdog.open_timeout=180",
    "systemd.gpt_auto=0",
    "systemd.import_credentials=0",
    "systemd.getty_auto=1",
    "rd.systemd.gpt_auto=0",
    "loglevel=4",
];

#[derive(Clone, Copy, Debug)]
pub enum Root<'a> {
    /// A verified root with this root hash, in hexadecimal.
    Verity(&'a str),
    /// The recovery system in the initramfs.
    Recovery,
}

#[must_use]
pub fn command_line(architecture: Architecture, root: Root<'_>, extra: &[String]) -> String {
    let mut words = vec![match root {
        Root::Verity(hash) => format!("sternpost.root={hash}"),
        Root::Recovery => "sternpost.recovery".to_owned(),
    }];
    // The last console becomes /dev/console.
    words.push("console=tty0".to_owned());
    words.push(
        match architecture {
            Architecture::X86_64 => "console=ttyS0,115200",
            Architecture::Aarch64 => "console=ttyAMA0,115200",
        }
        .to_owned(),
    );
    words.extend(COMMON.iter().map(|word| (*word).to_owned()));
    words.extend(extra.iter().cloned());
    words.join(" ")
}

/// What goes into a UKI.
pub struct Parts<'a> {
    /// The architecture that it boots on.
    pub architecture: Architecture,
    /// systemd's stub as its package has it.
    pub stub: &'a Path,
    pub kernel: &'a Path,
    /// `uname -r`.
    pub kernel_version: &'a str,
    pub initramfs: &'a Path,
    /// CPU microcode, which the kernel reads before anything else of the initramfs.
    pub microcode: Option<&'a Path>,
    pub command_line: &'a str,
    /// Content of os-release.
    pub os_release: &'a str,
    /// Seconds since 1970 for the PE header.
    pub epoch: u64,
}

/// Joins the parts by ukify, with a [stub](crate::boot::stub) that is deaf to SMBIOS; no signature that firmware accepts is
/// put on it.
///
/// # Errors
/// The stub is not as it must be, or ukify fails.
pub async fn build(tools: &Tools, parts: &Parts<'_>, out: &Path) -> Result<()> {
    let work = tempfile::tempdir().context("making a directory for the UKI's parts")?;
    let file = |name: &str, text: &str| {
        let path = work.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok::<_, anyhow::Error>(format!("@{}", path.display()))
    };
    let what = || format!("systemd's stub {}", parts.stub.display());
    let mut stub = std::fs::read(parts.stub).with_context(what)?;
    stub::deafen(&mut stub).with_context(what)?;
    let stub_path = work.path().join("stub");
    std::fs::write(&stub_path, stub).with_context(|| format!("writing {}", stub_path.display()))?;
    let mut ukify = tools.command("ukify")?;
    ukify
        .arg("build")
        .args(["--efi-arch", parts.architecture.efi()])
        .arg("--stub")
        .arg(&stub_path)
        .arg("--linux")
        .arg(parts.kernel)
        .arg("--initrd")
        .arg(parts.initramfs)
        .args(["--cmdline", &file("cmdline", parts.command_line)?])
        .args(["--os-release", &file("os-release", parts.os_release)?])
        .args(["--uname", parts.kernel_version])
        .arg("--output")
        .arg(out)
        .env("SOURCE_DATE_EPOCH", parts.epoch.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(microcode) = parts.microcode {
        ukify.arg("--microcode").arg(microcode);
    }
    run("joining the UKI", &mut ukify).await?;
    let uki = std::fs::read(out).with_context(|| format!("reading {}", out.display()))?;
    stub::ensure_deaf(&uki).context("the UKI that ukify joined")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_comes_first_and_the_serial_console_last() {
        let line = command_line(
            Architecture::X86_64,
            Root::Verity("abcd"),
            &["quiet".to_owned()],
        );
        assert!(
            line.starts_with("sternpost.root=abcd console=tty0 console=ttyS0,115200 panic=10 ")
        );
        assert!(line.ends_with(" quiet"));
        let line = command_line(Architecture::Aarch64, Root::Recovery, &[]);
        assert!(line.starts_with("sternpost.recovery console=tty0 console=ttyAMA0,115200 "));
        assert!(!line.contains('\n'));
    }
}
