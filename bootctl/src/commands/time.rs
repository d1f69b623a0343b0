//! `time set`: where no time server is reached and the hardware clock is dead, somebody says the time.

use clap::Subcommand;
use serde_json::json;

use crate::failure::{Code, Doing, Failure, Result};
use crate::machine::Machine;
use crate::machine::clock::{time_synchronized, was_set};
use crate::os::clock;
use crate::output::Outcome;

/// The commands about the time.
#[derive(Debug, Subcommand)]
pub enum Time {
    /// Set the clock, and the hardware clock where there is one; no later start is earlier than this
    #[command(after_help = "\
Examples:
  bootctl time set 2026-11-22 16:05
  ssh operator@site sudo bootctl time set $(date -u +%FT%TZ)

Refused (3) while the time comes from a time server, and for a time before the image was built.")]
    Set {
        /// In UTC: 2026-11-22 16:05[:09], 2026-11-22T16:05:09Z, or @ and Unix seconds
        #[arg(required = true, num_args = 1..=3, value_name = "TIME")]
        time: Vec<String>,
    },
}

/// `bootctl time …`.
pub fn time(machine: &Machine, command: &Time) -> Result<Outcome> {
    let Time::Set { time } = command;
    let text = time.join(" ");
    let seconds = clock::parse(&text).ok_or_else(|| {
        Failure::new(Code::Usage, format!("`{text}` is no time"))
            .next("write it in UTC, as in: bootctl time set 2026-11-22 16:05")
    })?;
    let paths = machine.paths();
    let doing = format!("setting the clock to {}", clock::format(seconds));
    if time_synchronized(&paths) {
        return Err(
            Failure::refused("the time comes from a time server, which would set it back")
                .doing(doing)
                .next(
                    "name another server under `time.servers` in the profile, if this one is wrong",
                ),
        );
    }
    let built = machine.image.as_ref().map_or(0, |image| image.build_time);
    let built = i64::try_from(built).unwrap_or(0);
    if seconds < built || !clock::can_be(seconds, built) {
        let built = clock::format(built);
        return Err(Failure::refused(format!("the image was built on {built}"))
            .doing(doing)
            .next("say the time as it is now, in UTC"));
    }
    let before = clock::now();
    let mut without_rtc = None;
    if machine.is_real() {
        clock::set(seconds).doing(|| &doing)?;
        without_rtc = clock::set_rtc(seconds).err().map(|e| e.to_string());
    }
    was_set(&paths, seconds).doing(|| &doing)?;
    let mut said = format!("the clock shows {}", clock::format(seconds));
    if let Some(why) = &without_rtc {
        said.push_str(&format!(
            "; the hardware clock could not be set ({why}): after a power cut the time goes on from where it was saved last"
        ));
    }
    let json = json!({"time": seconds, "before": before, "hardware_clock": without_rtc});
    Ok(Outcome::new(said, json))
}
