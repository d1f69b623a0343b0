//! Whether the time of this machine can be right, and keeping it for the next start.

use std::time::Duration;

use serde::Deserialize;

use crate::failure::{Doing, Result};
use crate::os::clock::{self, Clock};
use crate::os::files::{read_json, write_atomic, write_line};
use crate::os::paths::Paths;

/// What `profile apply` left about the clock.
#[derive(Deserialize)]
struct Applied {
    clock: Option<Clock>,
}

/// In /run: somebody set the time in this boot.
const SET: &str = "time-set";

/// Whether the time came from the network in this boot.
pub fn time_synchronized(paths: &Paths) -> bool {
    paths.at("/run/systemd/timesync/synchronized").exists()
}

/// Whether somebody said the time in this boot, a server or a person.
fn is_known(paths: &Paths) -> bool {
    time_synchronized(paths) || paths.run(SET).exists()
}

/// Saves the time for the next start, unless it is a guess: what is saved counts as known.
pub fn save(paths: &Paths) {
    if implausible(paths).is_some() {
        return;
    }
    if let Err(e) = clock::save(&paths.state("clock"), is_known(paths)) {
        eprintln!("bootctl: saving the clock: {e}");
    }
}

/// Somebody has set the clock to `seconds`: from now on it is known, and no later start is earlier.
pub fn was_set(paths: &Paths, seconds: i64) -> Result<()> {
    let line = format!("{seconds}\n");
    let saved = paths.state("clock");
    write_line(&saved, &seconds.to_string()).doing(|| format!("writing {}", saved.display()))?;
    let path = paths.run(SET);
    write_atomic(&path, line.as_bytes(), 0o644).doing(|| format!("writing {}", path.display()))
}

/// Why the clock cannot be right, if so.
pub fn implausible(paths: &Paths) -> Option<String> {
    if is_known(paths) {
        return None;
    }
    let applied: Applied = read_json(&paths.run("applied.json")).ok()?;
    applied.clock?.implausible
}

/// What a bring-up does about the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Nothing, but wait for it, because of this.
    On(String),
    /// Go on, though it cannot be right, because of this.
    Over(String),
    /// Go on.
    NotNeeded,
}

/// Decides, after so long, where the profile has the bring-up wait at most so long, or for ever. Pure.
#[must_use]
pub fn wait(implausible: Option<String>, waited: Duration, at_most: Option<Duration>) -> Wait {
    match (implausible, at_most) {
        (None, _) => Wait::NotNeeded,
        (Some(why), Some(at_most)) if waited >= at_most => Wait::Over(why),
        (Some(why), _) => Wait::On(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_never_comes_is_waited_for_as_long_as_the_profile_says() {
        const S: Duration = Duration::from_secs(1);
        let why = || Some("dead".to_owned());
        let on = || Wait::On("dead".into());
        for (implausible, waited, at_most, expected) in [
            (None, Duration::ZERO, None, Wait::NotNeeded),
            (None, 900 * S, Some(300 * S), Wait::NotNeeded),
            (why(), Duration::ZERO, Some(300 * S), on()),
            (why(), 299 * S, Some(300 * S), on()),
            (why(), 300 * S, Some(300 * S), Wait::Over("dead".into())),
            (why(), 1_000_000 * S, None, on()),
            (
                why(),
                Duration::ZERO,
                Some(Duration::ZERO),
                Wait::Over("dead".into()),
            ),
        ] {
            assert_eq!(wait(implausible, waited, at_most), expected);
        }
    }
}
