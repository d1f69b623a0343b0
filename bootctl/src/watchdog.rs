//! Watchdogs: what covers which stretch of a start, and what the loader is told for the next one.
//!
//! Between the loader's end and the initrd's first step only a hardware timer that the loader arms helps. It may arm
//! one only where something stops it again, or it would reset a machine that is well. What this image's kernel has a
//! driver for is in the manifest; that the driver works on this machine is shown by a system that came up with it, and
//! said here, in a variable of the machine's firmware (docs/formats/hand-over.md).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use boot_core::hand_over::{WATCHDOG_MAX, WATCHDOG_VARIABLE};
use boot_core::layout::VENDOR;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use schemars::JsonSchema;
use serde::Serialize;

use crate::machine::Machine;
use crate::os::paths::Paths;

/// The kernel's own watchdog, which is no hardware.
const SOFTDOG: &str = "softdog";
const EFIVARS: &str = "/sys/firmware/efi/efivars";
/// NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS.
const STORED: u32 = 7;

/// A stretch of a start, and what ends a hang in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stretch {
    /// From where to where.
    pub what: &'static str,
    /// What resets the machine; `null` if nothing does.
    pub by: Option<String>,
    /// Why nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Stretch {
    fn new(what: &'static str, by: Result<String, String>) -> Self {
        let (by, why) = match by {
            Ok(by) => (Some(by), None),
            Err(why) => (None, Some(why)),
        };
        Self { what, by, why }
    }
}

/// The stretches of this start, in order.
pub fn stretches(machine: &Machine) -> Vec<Stretch> {
    let handover = machine.handover.as_ref();
    let opened = machine.boot.watchdog.as_deref();
    let hardware = opened.filter(|driver| *driver != SOFTDOG);
    let none = || String::from("no hardware watchdog was found; panics still restart the machine");
    let loader = match handover.map_or(0, |it| it.watchdog_seconds) {
        0 => Err(String::from("the firmware has no watchdog")),
        seconds => Ok(format!("the firmware's watchdog, {seconds} s")),
    };
    let kernel = match (handover.and_then(|it| it.timer.as_ref()), hardware) {
        (Some(timer), _) => Ok(format!(
            "{}, armed by the loader, {} s",
            timer.driver, timer.seconds
        )),
        (None, Some(driver)) => Err(format!("the loader did not arm {driver}")),
        (None, None) => Err(none()),
    };
    let running = match (opened, machine.boot.watchdog_seconds) {
        (Some(SOFTDOG), _) => Ok(String::from(
            "the kernel's softdog, as long as the kernel itself runs",
        )),
        (Some(driver), Some(seconds)) if seconds > 0 => Ok(format!("{driver}, {seconds} s")),
        (Some(driver), _) => Ok(driver.to_owned()),
        (None, _) => Err(none()),
    };
    vec![
        Stretch::new("the loader", loader),
        Stretch::new("from the loader's end to the initrd's first step", kernel),
        Stretch::new("from there on", running),
    ]
}

/// Tells the loader which driver this machine's watchdog has (`None`: it has none), should that be news to it.
///
/// # Errors
/// The firmware does not store it: the loader then arms what it was told before, or nothing.
pub fn tell_loader(paths: &Paths, driver: Option<&str>) -> io::Result<()> {
    let variables = paths.at(EFIVARS);
    let file = variables.join(format!("{WATCHDOG_VARIABLE}-{VENDOR}"));
    let wanted = driver
        .filter(|driver| driver.len() <= WATCHDOG_MAX)
        .map(|driver| [&STORED.to_le_bytes()[..], driver.as_bytes()].concat());
    let found = match fs::read(&file) {
        Ok(found) => Some(found),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    // Each write wears the firmware's memory.
    if found == wanted || !variables.is_dir() {
        return Ok(());
    }
    if found.is_some() {
        make_mutable(&file)?;
        fs::remove_file(&file)?;
    }
    match wanted {
        // In one call: efivarfs takes each write for the whole variable.
        Some(wanted) => fs::write(&file, wanted),
        None => Ok(()),
    }
}

/// efivarfs guards variables that it does not know against being deleted by mistake.
fn make_mutable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match ioctl_getflags(&file) {
        Ok(flags) if flags.contains(IFlags::IMMUTABLE) => {
            ioctl_setflags(&file, flags - IFlags::IMMUTABLE).map_err(Into::into)
        }
        // A filesystem without such flags has nothing to take away.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use boot_core::boot_report::{self, BootReport};
    use boot_core::{Digest, Target};

    use super::*;

    #[test]
    fn the_loader_is_told_once_and_again_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        tell_loader(&paths, Some("i6300esb")).unwrap();
        assert!(!paths.at(EFIVARS).exists(), "a machine without UEFI");

        fs::create_dir_all(paths.at(EFIVARS)).unwrap();
        let file = paths
            .at("/sys/firmware/efi/efivars/SternpostWatchdog-6e56d3ab-d913-4a68-afdf-73638fbec4a8");
        tell_loader(&paths, Some("i6300esb")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"\x07\0\0\0i6300esb");
        let time = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        tell_loader(&paths, Some("i6300esb")).unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            time,
            "not written again"
        );
        tell_loader(&paths, Some("wdat_wdt")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"\x07\0\0\0wdat_wdt");
        tell_loader(&paths, Some(&"x".repeat(WATCHDOG_MAX + 1))).unwrap();
        assert!(!file.exists(), "a name that the loader does not read");
        tell_loader(&paths, Some("wdat_wdt")).unwrap();
        tell_loader(&paths, None).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn each_stretch_says_what_covers_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run/sternpost");
        fs::create_dir_all(&run).unwrap();
        let stretches = |watchdog: Option<&str>, firmware: u64, timer: serde_json::Value| {
            let mut boot = BootReport::new(Target::A, Digest([0x22; 32]));
            boot.watchdog = watchdog.map(Into::into);
            boot.watchdog_seconds = Some(60);
            fs::write(run.join(boot_report::FILE), boot.to_json()).unwrap();
            let handover = serde_json::json!({
                "version": 1, "slot": "a", "why": "priority", "nonce": "11".repeat(16),
                "recorded": true, "disk": "x", "manifest": "22".repeat(32), "record_versions": [1, 1],
                "loader": "0.1.0", "secure_boot": false, "watchdog_seconds": firmware, "timer": timer,
                "times": {"start_us": 1, "exec_us": 2},
            });
            fs::write(run.join("handover.json"), handover.to_string()).unwrap();
            super::stretches(&Machine::read(dir.path()).unwrap())
                .into_iter()
                .map(|it| it.by.unwrap_or_else(|| format!("- {}", it.why.unwrap())))
                .collect::<Vec<_>>()
        };
        let timer = serde_json::json!({"driver": "i6300esb", "seconds": 180});
        assert_eq!(
            stretches(Some("i6300esb"), 120, timer),
            [
                "the firmware's watchdog, 120 s",
                "i6300esb, armed by the loader, 180 s",
                "i6300esb, 60 s"
            ]
        );
        assert_eq!(
            stretches(Some("iTCO_wdt"), 0, serde_json::Value::Null),
            [
                "- the firmware has no watchdog",
                "- the loader did not arm iTCO_wdt",
                "iTCO_wdt, 60 s"
            ]
        );
        let none = "- no hardware watchdog was found; panics still restart the machine";
        assert_eq!(
            stretches(Some("softdog"), 120, serde_json::Value::Null),
            [
                "the firmware's watchdog, 120 s",
                none,
                "the kernel's softdog, as long as the kernel itself runs"
            ]
        );
        assert_eq!(
            stretches(None, 120, serde_json::Value::Null),
            ["the firmware's watchdog, 120 s", none, none]
        );
    }
}
