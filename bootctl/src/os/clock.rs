//! The clock: raised before anything makes a certificate, saved while it runs.
//!
//! A machine whose clock battery is dead starts in 1970. It is never earlier than the image was
//! built, nor than the time last saved. What is raised that way is late by the time that the
//! machine was off, which certificates can bear. [`judge`] decides which time is believed; `profile::apply` sets it, and
//! `machine::clock` says, while the machine runs, whether it is plausible. What depends on the time:
//!
//! | while it is implausible | where |
//! | --- | --- |
//! | nothing is brought up | `bring_up` |
//! | an unhealthy verdict is not acted upon, unless the root is damaged | `service::step`, `Known::stays` |
//! | it is not saved | `machine::clock::save` |
//!
//! And whatever it is: a bundle that has expired is not installed (`install::bundle_front`). Nothing about booting.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::os::files::write_line;

/// How fast a machine is: what we wait for by ourselves is divided by this. 1 in the field; tests are in a hurry.
#[derive(Debug, Clone, Copy)]
pub struct Pace(pub u32);

impl Default for Pace {
    fn default() -> Self {
        Self(1)
    }
}

impl Pace {
    /// How long to wait for what takes `field` in the field.
    #[must_use]
    pub fn of(self, field: Duration) -> Duration {
        field / self.0.max(1)
    }
}

/// Further ahead of everything known than this, a clock is nonsense.
const FAR: i64 = 10 * 366 * 24 * 3600;
/// Further behind the image's build than this, with nothing saved, the time is a guess.
const DAY: i64 = 24 * 3600;

/// What was found and done about the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// What it showed, Unix seconds.
    pub found: i64,
    /// What it was set to, if it was.
    pub raised_to: Option<i64>,
    /// Why it cannot be right.
    pub implausible: Option<String>,
}

/// What there is to go by, Unix seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// When the image was built.
    pub built: i64,
    /// What was saved last.
    pub saved: Option<i64>,
    /// What the hardware clock says.
    pub rtc: Option<i64>,
}

/// Seconds since 1970; negative before.
pub fn now() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// What the clock should show, and whether that can be right. Does not set it.
pub fn judge(found: i64, known: Known) -> Clock {
    let floor = known.built.max(known.saved.unwrap_or(i64::MIN));
    let rtc = known.rtc.filter(|rtc| *rtc >= floor && *rtc - floor <= FAR);
    let wanted = found.max(floor).max(rtc.unwrap_or(i64::MIN));
    let implausible = if found.saturating_sub(floor) > FAR {
        Some(
            "the clock is more than ten years ahead of the image and of the time last saved".into(),
        )
    } else if floor.saturating_sub(found) > DAY && known.saved.is_none() && rtc.is_none() {
        Some("the clock was behind the image's build, and no time was ever saved".into())
    } else {
        None
    };
    Clock {
        found,
        raised_to: (wanted > found).then_some(wanted),
        implausible,
    }
}

/// The time that was saved in `path`.
pub fn saved(path: &Path) -> Option<i64> {
    small_file::read_to_string(path).ok()?.trim().parse().ok()
}

/// Saves the time, never an earlier one over a later one that can be right, unless the time is
/// `synchronized`: what was saved while the clock was wrong must not stay.
pub fn save(path: &Path, synchronized: bool) -> std::io::Result<()> {
    let now = now();
    if !synchronized && saved(path).is_some_and(|saved| saved > now && saved - now < FAR) {
        return Ok(());
    }
    write_line(path, &now.to_string())
}

/// The hardware clock, where there is one.
pub fn rtc(sysfs: &Path) -> Option<i64> {
    std::fs::read_to_string(sysfs.join("class/rtc/rtc0/since_epoch"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Sets the clock.
pub fn set(seconds: i64) -> std::io::Result<()> {
    rustix::time::clock_settime(
        rustix::time::ClockId::Realtime,
        rustix::time::Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        },
    )?;
    Ok(())
}

/// Time since the machine was started, suspended or not.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// `2026-11-22 16:05:09 UTC`; "time unknown" for 0.
pub fn format(seconds: i64) -> String {
    if seconds == 0 {
        return "time unknown".into();
    }
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a civil date, after Howard Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: i64 = 1_790_000_000;

    #[test]
    fn a_dead_battery_is_raised_to_the_latest_that_is_known() {
        let nothing = judge(
            0,
            Known {
                built: BUILT,
                ..Known::default()
            },
        );
        assert_eq!(nothing.raised_to, Some(BUILT));
        assert!(nothing.implausible.is_some());
        let saved = judge(
            0,
            Known {
                built: BUILT,
                saved: Some(BUILT + 500),
                rtc: Some(10),
            },
        );
        assert_eq!(saved.raised_to, Some(BUILT + 500));
        assert_eq!(saved.implausible, None);
        let rtc = judge(
            0,
            Known {
                built: BUILT,
                saved: None,
                rtc: Some(BUILT + 9),
            },
        );
        assert_eq!(rtc.raised_to, Some(BUILT + 9));
        assert_eq!(rtc.implausible, None);
    }

    #[test]
    fn a_right_clock_is_left_alone_and_a_mad_one_is_named() {
        let known = Known {
            built: BUILT,
            saved: Some(BUILT + 5),
            rtc: None,
        };
        assert_eq!(judge(BUILT + 100, known).raised_to, None);
        assert_eq!(judge(BUILT + 100, known).implausible, None);
        assert!(judge(BUILT + 2 * FAR, known).implausible.is_some());
    }

    #[test]
    fn the_saved_time_does_not_fall() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clock");
        let later = now() + 1000;
        std::fs::write(&path, later.to_string()).unwrap();
        save(&path, false).unwrap();
        assert_eq!(saved(&path), Some(later));
        save(&path, true).unwrap();
        assert!(saved(&path).unwrap() < later);
        std::fs::write(&path, "1").unwrap();
        save(&path, false).unwrap();
        assert!(saved(&path).unwrap() > 1_000_000);
    }

    #[test]
    fn dates() {
        assert_eq!(format(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(format(1_795_363_509), "2026-11-22 16:05:09 UTC");
        assert_eq!(format(0), "time unknown");
    }
}
