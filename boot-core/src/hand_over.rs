//! What the loader hands over to what it starts, as a volatile EFI variable. Details:
//! docs/formats/hand-over.md.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    floor::Floors,
    select::Why,
    slot::Target,
    text,
    types::{Digest, Nonce},
};

/// Name of the variable; its vendor is [`layout::VENDOR`](crate::layout::VENDOR).
pub const VARIABLE: &str = "SternpostHandover";

/// Name of the variable, of the same vendor, in which the running system tells the loader which driver its hardware
/// watchdog has: the name of a kernel module. It is stored in the firmware, because it is said of the machine, not of
/// the disk.
pub const WATCHDOG_VARIABLE: &str = "SternpostWatchdog";

/// Most bytes of that name.
pub const WATCHDOG_MAX: usize = 32;

/// Name of the variable, of the same vendor, in which the loader notes what firmware faulted in when a hardware timer was
/// touched: the driver, the loader's version and the firmware's revision. It leaves that timer alone from then on. Stored,
/// and the running system may delete it.
pub const TIMER_FAULT_VARIABLE: &str = "SternpostTimerFault";

/// Most bytes of that note.
pub const TIMER_FAULT_MAX: usize = 128;

/// Version that this build writes and reads.
pub const VERSION: u32 = 1;

/// Most bytes of it.
pub const SIZE_MAX: usize = 8192;

/// To how many bytes reasons are cut, one after the other, where firmware takes no longer hand-over.
const REASONS: [usize; 3] = [120, 48, 12];

/// The hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandOver {
    /// [`VERSION`].
    pub version: u32,
    /// What was started.
    pub slot: Target,
    /// Why it was its turn.
    pub why: Why,
    /// The nonce in the newest record on the disk; zero if there is no record.
    pub nonce: Nonce,
    /// Whether this start could be written into the record.
    pub recorded: bool,
    /// GUID of the disk's partition table, lower case.
    pub disk: String,
    /// Digest of the manifest that was verified.
    pub manifest: Digest,
    /// Lowest and highest version of the record that the loader can read.
    pub record_versions: [u16; 2],
    /// Version of the loader.
    pub loader: String,
    /// Whether Secure Boot is on.
    pub secure_boot: bool,
    /// What the firmware's watchdog was set to; 0 if it could not be.
    pub watchdog_seconds: u64,
    /// The hardware timer that the loader armed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<Timer>,
    /// What was tried before and not started.
    #[serde(default)]
    pub rejected: Vec<Rejection>,
    /// How many of those were left out, because firmware took no longer hand-over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// When the loader began and ended.
    pub times: Times,
    /// Digest of the loader's root of trust ([`Trust::digest`](crate::trust::Trust::digest)); none from a loader that
    /// did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Digest>,
    /// The floors in force: the higher ones of what firmware and the record said; none from a loader that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floors: Option<Floors>,
    /// Whether all of firmware's floors could be read; none without Secure Boot, and from a loader that did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_floors: Option<bool>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A hardware timer that runs from the loader's end on, until the initrd's watchdog driver takes it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The kernel module that takes it over.
    pub driver: String,
    /// Seconds from the loader's end until it resets the machine.
    pub seconds: u64,
}

/// Something that was tried and not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The slot, or recovery.
    pub slot: Target,
    /// One line for a person.
    pub reason: String,
}

/// Moments, in microseconds since the machine was reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When the loader was entered.
    pub start_us: u64,
    /// When it started what it had loaded.
    pub exec_us: u64,
}

/// Why bytes are not a hand-over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("the loader's hand-over cannot be read: {0}")]
    Json(String),
    /// Written by a version that this build does not know.
    #[error("the loader's hand-over has version {0}, this program knows {VERSION}")]
    Version(u32),
}

impl HandOver {
    /// Reads a hand-over. Fields it does not know are ignored.
    pub fn from_json(json: &[u8]) -> Result<Self, HandOverError> {
        #[derive(Deserialize)]
        struct JustVersion {
            version: u32,
        }
        let not_json = |error: serde_json::Error| HandOverError::Json(error.to_string());
        let JustVersion { version } = serde_json::from_slice(json).map_err(not_json)?;
        if version != VERSION {
            return Err(HandOverError::Version(version));
        }
        serde_json::from_slice(json).map_err(not_json)
    }

    /// As JSON, compact.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// As JSON for firmware that does not say how long a variable may be: the whole, then ever shorter ones, the last of
    /// which has nothing but what a start needs. What goes is the ends of the reasons in `rejected` ([`REASONS`]), which an
    /// ellipsis stands for, then those entries, whose number stays. No stage decides by them, and the event ring has them
    /// too.
    pub fn encodings(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let with = |rejected: Vec<Rejection>| Self {
            left_out: self.rejected.len().saturating_sub(rejected.len()),
            rejected,
            ..self.clone()
        };
        let cut = move |most: usize| {
            let shorter = |it: &Rejection| Rejection {
                slot: it.slot,
                reason: text::shorten(&it.reason, most),
            };
            with(self.rejected.iter().map(shorter).collect())
        };
        let shorter = REASONS.into_iter().map(cut);
        let all = core::iter::once(self.clone())
            .chain(shorter)
            .chain(core::iter::once(with(Vec::new())));
        let mut shortest = SIZE_MAX.saturating_add(1);
        all.map(|it| it.to_json()).filter(move |json| {
            let is_shorter = json.len() < shortest;
            shortest = shortest.min(json.len());
            is_shorter
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use super::*;
    use crate::floor::Level;

    /// What EDK II gives a variable by default, its name and header included.
    const SMALL_VARIABLE: usize = 1024;
    const NAME_AND_HEADER: usize = 60 + 2 * (VARIABLE.len() + 1);

    fn rejection(slot: Target, reason: &str) -> Rejection {
        let reason = reason.into();
        Rejection { slot, reason }
    }

    /// With everything that a start needs as long as it gets, after these were tried.
    fn after(rejected: Vec<Rejection>) -> HandOver {
        HandOver {
            version: VERSION,
            slot: Target::Recovery,
            why: Why::Uncounted,
            nonce: Nonce([0xab; 16]),
            recorded: false,
            disk: "01234567-89ab-cdef-0123-456789abcdef".into(),
            manifest: Digest([0xcd; 32]),
            record_versions: [u16::MAX; 2],
            loader: "100.100.100-alpha.100".into(),
            secure_boot: false,
            watchdog_seconds: 120,
            timer: Some(Timer {
                driver: "x".repeat(WATCHDOG_MAX),
                seconds: 180,
            }),
            rejected,
            left_out: 0,
            times: Times {
                start_us: u64::MAX,
                exec_us: u64::MAX,
            },
            trust: Some(Digest([0xef; 32])),
            floors: Some(Floors {
                system: Level::new(u64::MAX, u64::MAX),
                recovery: Level::new(u64::MAX, u64::MAX),
            }),
            firmware_floors: Some(false),
        }
    }

    #[test]
    fn a_hand_over_gets_shorter_until_it_fits_and_keeps_what_a_start_needs() {
        // Text that nobody signed may need six bytes for each of its own.
        let rejected = vec![rejection(Target::A, &"\u{1}".repeat(240)); 6];
        let whole = after(rejected);
        let encodings: Vec<_> = whole.encodings().collect();
        assert!(encodings.iter().all(|it| it.len() <= SIZE_MAX));
        assert!(encodings.windows(2).all(|two| two[1].len() < two[0].len()));
        let last = encodings.last().unwrap();
        assert!(
            last.len() <= SMALL_VARIABLE - NAME_AND_HEADER,
            "{}",
            last.len()
        );
        for json in &encodings {
            let read = HandOver::from_json(json).unwrap();
            let told = read.rejected.len() + read.left_out;
            assert_eq!(told, whole.rejected.len(), "what is missing is said");
            let but_reasons = HandOver {
                rejected: whole.rejected.clone(),
                left_out: 0,
                ..read
            };
            assert_eq!(but_reasons, whole);
        }
    }

    #[test]
    fn reasons_are_cut_before_they_are_left_out() {
        let long = format!("no such partition {}", "x".repeat(200));
        let whole = after(vec![
            rejection(Target::A, &long),
            rejection(Target::B, "short"),
        ]);
        let reasons: Vec<_> = whole
            .encodings()
            .map(|json| {
                let read = HandOver::from_json(&json).unwrap();
                let reasons = read.rejected.into_iter().map(|it| it.reason.len());
                (reasons.collect::<Vec<_>>(), read.left_out)
            })
            .collect();
        let dots = "…".len();
        let cut = |to: usize| (vec![to + dots, 5], 0);
        let expected = [(vec![218, 5], 0), cut(120), cut(48), cut(12), (vec![], 2)];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn what_was_never_shortened_says_nothing_of_it() {
        let json = after(vec![]).to_json();
        assert!(!json.windows(8).any(|it| it == b"left_out"));
    }
}
