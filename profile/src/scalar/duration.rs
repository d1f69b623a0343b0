//! Spans of time.

use core::fmt;
use core::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A span of time, written `90s`, `10m`, `1h`, `1h30m`. From 0 s to 24 h, whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Deadline(u32);

impl Deadline {
    const MAX: u32 = 24 * 60 * 60;

    /// So many seconds, at most 24 hours of them.
    #[must_use]
    pub const fn from_secs(seconds: u32) -> Self {
        Self(if seconds > Self::MAX {
            Self::MAX
        } else {
            seconds
        })
    }

    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl FromStr for Deadline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a time span is wanted, such as 90s, 10m or 1h30m".to_owned();
        let mut total = 0_u32;
        let mut number: Option<u32> = None;
        let mut last_unit = u32::MAX;
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let so_far = number
                    .unwrap_or(0)
                    .checked_mul(10)
                    .and_then(|n| n.checked_add(digit));
                number = Some(so_far.ok_or_else(wrong)?);
                continue;
            }
            let unit = match c {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(wrong()),
            };
            if unit >= last_unit {
                return Err(wrong());
            }
            last_unit = unit;
            let part = number
                .take()
                .ok_or_else(wrong)?
                .checked_mul(unit)
                .ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
        }
        if text.is_empty() || number.is_some() {
            return Err(wrong());
        }
        if total > Self::MAX {
            return Err("a time span of at most 24h is wanted".to_owned());
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "0s"),
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 && s < 3600 => write!(f, "{}m", s / 60),
            s if s < 3600 => write!(f, "{s}s"),
            s => write!(f, "{}h{}m{}s", s / 3600, s % 3600 / 60, s % 60),
        }
    }
}

text_form!(Deadline, "duration", "10m");
