//! What is asked of the operating system: files, locks, time, systemd.

pub mod clock;
pub(crate) mod console;
pub mod files;
pub mod lock;
pub(crate) mod notify;
pub mod paths;
pub mod power;
pub(crate) mod process;
mod rtc;
pub(crate) mod systemd;
