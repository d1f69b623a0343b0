//! Whether KVM really runs a guest here.
//!
//! `/dev/kvm` that opens says little: nested and filtered KVMs let QEMU start and then stop the guest
//! early. So the firmware is started for a moment; KVM counts as working when the firmware has
//! brought its console up. The answer is kept until the host boots again.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::arch::Architecture;
use crate::run::qemu::{self, Accelerator};
use crate::workshop::cache::Cache;
use crate::workshop::tools::Tools;

/// How long the firmware may take to its console; under KVM it takes about one second.
const PATIENCE: Duration = Duration::from_secs(10);

/// KVM where it works, software emulation otherwise.
#[must_use]
pub fn best(tools: &Tools, cache: &Cache, architecture: Architecture) -> Accelerator {
    if architecture != Architecture::OWN
        || fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_err()
    {
        return Accelerator::Tcg;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = cache
        .directory("kvm")
        .ok()
        .map(|directory| directory.join(boot.trim()));
    if let Some(kept) = answer
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok())
    {
        return if kept == "kvm" {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        };
    }
    let works = probe(tools, architecture).unwrap_or(false);
    if let Some(path) = answer {
        // Not being able to keep the answer costs a probe next time, nothing else.
        let _ = fs::write(path, if works { "kvm" } else { "tcg" });
    }
    if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    }
}

fn probe(tools: &Tools, architecture: Architecture) -> Result<bool> {
    let work = tempfile::tempdir().context("making a directory to try KVM in")?;
    let console = work.path().join("console");
    let (code, _) = qemu::firmware(architecture);
    let machine = match architecture {
        Architecture::X86_64 => "q35,smm=off",
        Architecture::Aarch64 => "virt,gic-version=max",
    };
    let mut qemu = tools.std_command(qemu::program(architecture))?;
    qemu.args([
        "-nodefaults",
        "-machine",
        machine,
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256",
    ])
    .args(["-display", "none", "-no-reboot", "-drive"])
    .arg(format!(
        "if=pflash,unit=0,format=raw,readonly=on,file={}",
        tools.path(code).display()
    ))
    .arg("-serial")
    .arg(format!("file:{}", console.display()))
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut child = qemu.spawn().context("starting QEMU to try KVM")?;
    let start = Instant::now();
    let mut works = false;
    while !works
        && start.elapsed() < PATIENCE
        && child.try_wait().context("waiting for QEMU")?.is_none()
    {
        std::thread::sleep(Duration::from_millis(100));
        works = spoke(&console);
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(works)
}

fn spoke(console: &Path) -> bool {
    fs::metadata(console).is_ok_and(|metadata| metadata.len() > 0)
}
