//! Makes a `state` that the machine could not use anew, empty.
//!
//! The agent in the initramfs never formats. It is done here, where there is a person or a profile that says so, while
//! /state is in memory and nothing has the partition open.

use std::path::Path;
use std::time::Duration;

use boot_core::boot_report::StateProblem;
use boot_core::event::EventKind;
use boot_core::{Digest, layout};

use crate::boot::Locked;
use crate::failure::{Failure, Result};
use crate::machine::Machine;
use crate::os::lock::Lock;
use crate::os::process;

/// How long one of the programs may take, on whatever disk.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Makes it anew; the device that it is on.
///
/// # Errors
/// It is in use, is not there, is not known to be damaged (unless `force`), or cannot be made.
pub fn erase(machine: &Machine, force: bool, why: &str) -> Result<String> {
    let reason = machine.boot.state_missing().unwrap_or_default();
    match machine.boot.state.problem {
        None => {
            return Err(Failure::refused("state is in use")
                .next("remove what is not needed below /var; only a state that could not be used is erased"));
        }
        Some(StateProblem::Missing) => {
            return Err(Failure::refused(reason)
                .next("write the disk image anew: no partition can be added"));
        }
        Some(StateProblem::Unusable) if !force => {
            return Err(Failure::refused(reason).next(
                "look at the disk (journalctl -k): nothing shows that what is on it is damaged; --force erases it all the same",
            ));
        }
        Some(StateProblem::Damaged | StateProblem::Unusable) => {}
    }
    machine.writable()?;
    // What installs keeps things on `state` too, and is not to be restarted in the middle.
    let _install = Lock::take(&machine.paths().install_lock(), "erase-state")?;
    let path = machine.partition("state")?;
    make(&path, machine.is_real())?;
    if let Err(e) = note(machine, why) {
        eprintln!("bootctl: {e}");
    }
    Ok(path.display().to_string())
}

/// Events are for people: without this one, `state` is no less erased.
fn note(machine: &Machine, why: &str) -> Result<()> {
    let mut control = Locked::wait_for(machine, "erase-state")?;
    control.event(EventKind::STATE_ERASED, None, Digest::ZERO, why);
    Ok(())
}

/// Makes the filesystem, and reads it back from the device.
fn make(path: &Path, is_device: bool) -> Result<()> {
    let device = path.display().to_string();
    let mut mkfs = vec!["/usr/sbin/mkfs.ext4"];
    mkfs.extend(layout::STATE_FILESYSTEM);
    mkfs.extend(["-E", "root_owner=0:0", &device]);
    run(&mkfs)?;
    let mut check = vec!["/usr/sbin/e2fsck", "-f", "-n"];
    // Out of the kernel's cache: what counts is what the disk has.
    check.extend(is_device.then_some("-F"));
    check.push(&device);
    run(&check)
}

fn run(command: &[&str]) -> Result<()> {
    let command: Vec<String> = command.iter().map(|&it| it.to_owned()).collect();
    let ended = process::wait_for(process::output(&command, PATIENCE)).and_then(|output| {
        if output.status.success() {
            return Ok(());
        }
        let mut said = output.stderr.lines().map(str::trim);
        Err(Failure::failed(format!(
            "{} ended with {}: {}",
            command[0],
            output.status,
            said.rfind(|line| !line.is_empty())
                .unwrap_or("it said nothing")
        )))
    });
    ended.map_err(|e| {
        e.doing("making the state filesystem anew").next(
            "look at the disk (journalctl -k); if it does not keep what is written to it, replace it",
        )
    })
}
