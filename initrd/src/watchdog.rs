//! The hardware watchdog: opened first of all, left running, never stopped.
//!
//! Closing it without the letter V leaves it counting; systemd opens it again and goes on. If nothing does, the
//! machine restarts, which is the point.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;

use crate::sys;

/// Time until it bites, when the driver lets us choose: longer than this agent and systemd's start take, under
/// emulation too.
const SECONDS: i32 = 60;

/// An armed watchdog.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    /// Name of the driver's module, or what the device calls itself.
    pub name: String,
    /// Seconds until it bites.
    pub seconds: i32,
}

impl Watchdog {
    /// Opens the first watchdog there is, which arms it.
    #[must_use]
    pub fn open() -> Option<Self> {
        let device = OpenOptions::new().write(true).open("/dev/watchdog0").ok()?;
        let name = fs::read_to_string("/sys/class/watchdog/watchdog0/identity")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
        let driver = fs::read_link("/sys/class/watchdog/watchdog0/device/driver/module")
            .ok()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        // A driver with a fixed time refuses; it counts all the same.
        let seconds = sys::watchdog_timeout(device.as_fd(), SECONDS).unwrap_or(0);
        Some(Self {
            device,
            name: driver.unwrap_or(name),
            seconds,
        })
    }

    /// Starts the time again; for steps that may take long and show that they get on.
    pub fn ping(&self) {
        // One that cannot be pinged bites, and the start is counted as failed.
        let _ = sys::watchdog_ping(self.device.as_fd());
    }
}
