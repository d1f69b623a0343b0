//! What the loader hands over to what it starts, as a volatile EFI variable. Details:
//! docs/formats/hand-over.md.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, Serialize};

use crate::{
    select::Why,
    slot::Target,
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

/// Version that this build writes and reads.
pub const VERSION: u32 = 1;

/// Most bytes of it.
pub const SIZE_MAX: usize = 8192;

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
    /// When the loader began and ended.
    pub times: Times,
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
}
