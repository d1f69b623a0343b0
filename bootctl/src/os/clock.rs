//! The clock: put right before anything makes a certificate, saved while it runs.
//!
//! A machine whose clock battery is dead starts in 1970, one whose hardware clock is damaged anywhere. It is never
//! earlier than the image was built, nor than the time last saved, and not years later than both: then it is set to the
//! later of them. What is set that way is late by the time that the machine was off, which certificates can bear;
//! certificates of the future are good for nothing once the time is right. [`judge`] decides which time is believed;
//! `profile::apply` sets it, and `machine::clock` says, while the machine runs, whether it is plausible. What depends
//! on the time:
//!
//! | while it is implausible | where |
//! | --- | --- |
//! | nothing is brought up, for as long as the profile says | `bring_up`, `machine::clock::wait` |
//! | an unhealthy verdict is not acted upon, unless the root is damaged | `service::step`, `Known::stays` |
//! | it is not saved | `machine::clock::save` |
//!
//! And whatever it is: a bundle that has expired is not installed (`install::bundle_front`). Nothing about booting.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boot_core::calendar::unix_seconds;
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

const YEAR: i64 = 366 * DAY;
/// Further ahead of everything known than this, no clock is believed: longer than machines lie on a shelf.
const FAR: i64 = 3 * YEAR;
/// No image is run for longer: what is further from its build is no time of this machine's.
const LIFE: i64 = 20 * YEAR;
/// Further behind the image's build than this, with nothing saved, the time is a guess.
const DAY: i64 = 24 * 3600;

/// What was found and done about the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// What it showed, Unix seconds.
    pub found: i64,
    /// What it was set to, if it was.
    pub set_to: Option<i64>,
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
    let built = known.built;
    let saved = known.saved.filter(|it| can_be(*it, built));
    let floor = built.max(saved.unwrap_or(built));
    let is_far = |time: i64| time.saturating_sub(floor) > FAR;
    let rtc = known.rtc.filter(|rtc| *rtc >= floor && !is_far(*rtc));
    let believed = if is_far(found) { floor } else { found };
    let wanted = believed.max(floor).max(rtc.unwrap_or(floor));
    let behind = floor.saturating_sub(found) > DAY && saved.is_none();
    let implausible = if rtc.is_some() {
        None
    } else if is_far(found) {
        Some("the clock was more than three years ahead of the image and of the time last saved")
    } else if behind {
        Some("the clock was behind the image's build, and no time was ever saved")
    } else {
        None
    };
    Clock {
        found,
        set_to: (wanted != found).then_some(wanted),
        implausible: implausible.map(str::to_owned),
    }
}

/// Whether a machine can have seen this time whose image was built then.
pub fn can_be(time: i64, built: i64) -> bool {
    time.abs_diff(built) <= LIFE.unsigned_abs()
}

/// The time that was saved in `path`.
pub fn saved(path: &Path) -> Option<i64> {
    small_file::read_to_string(path).ok()?.trim().parse().ok()
}

/// Saves the time, never an earlier one over a later one that can be right, unless the time is `known`, from a server
/// or from somebody: what was saved while the clock was wrong must not stay.
pub fn save(path: &Path, known: bool) -> std::io::Result<()> {
    let now = now();
    if !known && saved(path).is_some_and(|saved| saved > now && saved - now < FAR) {
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

/// Sets the hardware clock, where there is one.
pub fn set_rtc(seconds: i64) -> std::io::Result<()> {
    super::rtc::set(seconds)
}

/// Time since the machine was started, suspended or not.
pub fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// A time as people write it: `2026-11-22 16:05[:09]`, with `T` in place of the blank, `Z` or `UTC` behind it or
/// neither, for it is UTC; or `@` and Unix seconds.
pub fn parse(text: &str) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok();
    }
    let number = |text: &str| -> Option<i64> {
        let plain = text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
        plain.then_some(text)?.parse().ok()
    };
    let numbers = |text: &str, between: char| {
        text.split(between)
            .map(number)
            .collect::<Option<Vec<i64>>>()
    };
    let text = text
        .strip_suffix("UTC")
        .or(text.strip_suffix('Z'))
        .unwrap_or(text);
    let (date, time) = text.trim().split_once([' ', 'T'])?;
    let date: [i64; 3] = numbers(date, '-')?.try_into().ok()?;
    let mut time = numbers(time, ':')?;
    if time.len() == 2 {
        time.push(0);
    }
    let [hour, minute, second]: [i64; 3] = time.try_into().ok()?;
    let seconds = unix_seconds(date, [hour, minute, second], 0)?;
    // The 30th of February, or 25 o'clock, would be another day.
    let [year, month, day] = date;
    (civil(seconds) == [year, month, day, hour, minute, second]).then_some(seconds)
}

/// `2026-11-22 16:05:09 UTC`; "time unknown" for 0.
pub fn format(seconds: i64) -> String {
    if seconds == 0 {
        return "time unknown".into();
    }
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month, day, hour, minute, second in UTC.
pub(super) fn civil(seconds: i64) -> [i64; 6] {
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
    [year, month, day, rest / 3600, rest / 60 % 60, rest % 60]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: i64 = 1_790_000_000;

    /// What a clock shows at the start, what was saved, what the hardware clock says, all in seconds after the build;
    /// what the clock is set to, and whether it is right then.
    #[test]
    fn of_all_times_the_latest_that_can_be_right_is_taken() {
        const LONG_AGO: i64 = -BUILT;
        type Row = (i64, Option<i64>, Option<i64>, Option<i64>, bool);
        #[rustfmt::skip]
        let table: &[Row] = &[
            // A right clock is left alone.
            (100, Some(5), None, None, true),
            (100, None, Some(100), None, true),
            (2 * YEAR, None, Some(2 * YEAR), None, true),
            (-3600, None, None, Some(0), true),
            // A dead battery.
            (LONG_AGO, None, None, Some(0), false),
            (LONG_AGO, Some(500), None, Some(500), true),
            (LONG_AGO, Some(500), Some(LONG_AGO + 10), Some(500), true),
            (LONG_AGO, None, Some(9), Some(9), true),
            // A hardware clock that is years ahead, by which the kernel has set the clock.
            (4 * YEAR, None, Some(4 * YEAR), Some(0), false),
            (9 * YEAR, Some(500), Some(9 * YEAR), Some(500), false),
            (40 * YEAR, Some(500), Some(40 * YEAR), Some(500), false),
            (i64::MAX - BUILT, None, None, Some(0), false),
            // It alone, or the clock alone.
            (100, None, Some(9 * YEAR), None, true),
            (9 * YEAR, None, Some(100), Some(100), true),
            // An old machine that ran until yesterday.
            (9 * YEAR, Some(9 * YEAR - DAY), Some(9 * YEAR), None, true),
            // What was saved is no time of this machine's.
            (100, Some(50 * YEAR), Some(100), None, true),
            (100, Some(i64::MAX - BUILT), None, None, true),
            (LONG_AGO, Some(LONG_AGO), None, Some(0), false),
            // An upgrade: the image is newer than what was saved.
            (LONG_AGO, Some(-30 * DAY), None, Some(0), true),
        ];
        for row in table {
            let (found, saved, rtc, set_to, is_right) = *row;
            let after = |time: i64| BUILT + time;
            let known = Known {
                built: BUILT,
                saved: saved.map(after),
                rtc: rtc.map(after),
            };
            let clock = judge(after(found), known);
            assert_eq!(clock.set_to, set_to.map(after), "{row:?}");
            assert_eq!(clock.implausible.is_none(), is_right, "{row:?}: {clock:?}");
        }
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
    fn times_that_people_write() {
        for text in [
            "2026-11-22 16:05:09 UTC",
            "2026-11-22T16:05:09Z",
            "2026-11-22 16:05:09",
            "@1795363509",
        ] {
            assert_eq!(parse(text), Some(1_795_363_509), "{text}");
        }
        assert_eq!(parse("2026-11-22 16:05"), Some(1_795_363_500));
        for text in [
            "",
            "@",
            "@x",
            "2026-11-22",
            "16:05:09",
            "2026-02-30 12:00",
            "2026-11-22 24:00",
            "2026-11-22 12:60",
            "2026-11-22 12",
            "2026-11-22 12:00:00:00",
            "26-11-22 12:00",
            "2026-11-22 12:00 CET",
            "2026-11-22 +1:00",
            "99999-01-01 00:00",
            "2026-11-22 12:00:00.5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(format(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(format(1_795_363_509), "2026-11-22 16:05:09 UTC");
        assert_eq!(format(0), "time unknown");
    }
}
