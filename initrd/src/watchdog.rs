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
    /// Opens the first watchdog there is, which arms it. `module` is what was loaded last and so made it appear.
    #[must_use]
    pub fn open(module: Option<&str>) -> Option<Self> {
        let device = OpenOptions::new().write(true).open("/dev/watchdog0").ok()?;
        let name = module.map(ToOwned::to_owned).or_else(|| {
            let text = fs::read_to_string("/sys/class/watchdog/watchdog0/identity").ok()?;
            Some(text.trim().to_owned())
        });
        // A driver with a fixed time refuses; it counts all the same.
        let seconds = sys::watchdog_timeout(device.as_fd(), SECONDS).unwrap_or(0);
        Some(Self {
            device,
            name: name.unwrap_or_else(|| "unknown".to_owned()),
            seconds,
        })
    }

    /// Starts the time again; for steps that may take long and show that they get on.
    pub fn ping(&self) {
        // One that cannot be pinged bites, and the start is counted as failed.
        let _ = sys::watchdog_ping(self.device.as_fd());
    }
}
