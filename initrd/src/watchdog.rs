//! The hardware watchdog, or without one the kernel's own (softdog): opened first of all, left running, never stopped.
//!
//! Its driver is loaded so that it cannot be stopped where it can be told so (`nowayout`), and closing it without the
//! letter V leaves it counting in any case; systemd opens it again and goes on. If nothing does, the machine restarts,
//! which is the point.
//!
//! It is pinged where this agent waits for something that may rightly take longer than the watchdog's time, each with
//! a limit of its own: the disk to appear, and the check, the mount and the growth of `state` ([`with_pings`]).

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// Time until it bites, when the driver lets us choose: longer than this agent and systemd's start take, under
/// emulation too.
const SECONDS: i32 = 60;
/// Longest time between two pings.
const LONGEST_PAUSE: u64 = 5;

/// An armed watchdog.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    /// Name of the driver's module, or what the device calls itself.
    pub name: String,
    /// Seconds until it bites; 0 if the driver does not say.
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
        let fd = device.as_fd();
        let seconds = sys::watchdog_timeout(fd, SECONDS)
            .ok()
            .filter(|seconds| *seconds > 0)
            // A driver with a fixed time refuses, and says what it is.
            .or_else(|| sys::watchdog_current_timeout(fd).ok())
            .unwrap_or(0);
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

/// Time between two pings of a watchdog that bites after `seconds`.
fn pause(seconds: i32) -> Duration {
    let third = u64::try_from(seconds).unwrap_or(0) / 3;
    if third == 0 {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(third.min(LONGEST_PAUSE))
    }
}

/// Does `work`, which is one call into the kernel that cannot be interrupted to ping, and pings meanwhile: for no
/// longer than `limit`, so that work that never ends is ended.
pub fn with_pings<T>(watchdog: Option<&Watchdog>, limit: Duration, work: impl FnOnce() -> T) -> T {
    match watchdog {
        Some(watchdog) => with_pings_by(|| watchdog.ping(), pause(watchdog.seconds), limit, work),
        None => work(),
    }
}

fn with_pings_by<T>(
    ping: impl Fn() + Send,
    every: Duration,
    limit: Duration,
    work: impl FnOnce() -> T,
) -> T {
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let started = Instant::now();
        let pinging = move || {
            while started.elapsed() < limit
                && done.recv_timeout(every) == Err(RecvTimeoutError::Timeout)
            {
                ping();
            }
        };
        // Without a thread the work has the watchdog's time, as everything else does.
        let _ = thread::Builder::new().spawn_scoped(scope, pinging);
        let outcome = work();
        drop(working);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const EVERY: Duration = Duration::from_millis(5);

    #[test]
    fn long_work_is_pinged_and_ends_at_once() {
        let pings = AtomicUsize::new(0);
        let ping = || {
            pings.fetch_add(1, Ordering::SeqCst);
        };
        let before = Instant::now();
        let waited = with_pings_by(ping, EVERY, Duration::from_secs(60), || {
            while pings.load(Ordering::SeqCst) < 3 {
                thread::sleep(Duration::from_millis(1));
            }
            before.elapsed()
        });
        assert!(waited >= EVERY * 3);
        let quick = with_pings_by(ping, Duration::from_secs(60), Duration::from_secs(60), || 7);
        assert_eq!(quick, 7);
        assert!(
            before.elapsed() < Duration::from_secs(30),
            "nothing is waited for"
        );
    }

    #[test]
    fn work_that_never_ends_is_left_to_the_watchdog() {
        let pings = AtomicUsize::new(0);
        let ping = || {
            pings.fetch_add(1, Ordering::SeqCst);
        };
        with_pings_by(ping, EVERY, EVERY * 4, || {
            thread::sleep(EVERY * 40);
        });
        assert!(pings.load(Ordering::SeqCst) <= 4);
    }

    #[test]
    fn a_short_time_is_pinged_more_often() {
        for (seconds, expected) in [(60, 5), (15, 5), (6, 2), (2, 1), (0, 1), (-1, 1)] {
            assert_eq!(pause(seconds), Duration::from_secs(expected), "{seconds}");
        }
    }
}
