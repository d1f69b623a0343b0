//! Whether the time of this machine can be right, and keeping it for the next start.

use serde::Deserialize;

use crate::os::clock::{self, Clock};
use crate::os::files::read_json;
use crate::os::paths::Paths;

/// What `profile apply` left about the clock.
#[derive(Deserialize)]
struct Applied {
    clock: Option<Clock>,
}

/// Whether the time came from the network in this boot.
pub fn time_synchronized(paths: &Paths) -> bool {
    paths.at("/run/systemd/timesync/synchronized").exists()
}

/// Saves the time for the next start, unless it is a guess: what is saved counts as known.
pub fn save(paths: &Paths) {
    if implausible(paths).is_some() {
        return;
    }
    if let Err(e) = clock::save(&paths.state("clock"), time_synchronized(paths)) {
        eprintln!("bootctl: saving the clock: {e}");
    }
}

/// Why the clock cannot be right, if so.
pub fn implausible(paths: &Paths) -> Option<String> {
    if time_synchronized(paths) {
        return None;
    }
    let applied: Applied = read_json(&paths.run("applied.json")).ok()?;
    applied.clock?.implausible
}
