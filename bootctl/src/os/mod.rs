//! What is asked of the operating system: files, devices, locks, time, systemd.

pub mod clock;
pub(crate) mod console;
pub mod device;
pub mod files;
pub mod lock;
pub(crate) mod notify;
pub mod paths;
pub mod power;
pub(crate) mod process;
mod rtc;
pub(crate) mod systemd;
