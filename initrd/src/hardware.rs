//! What the machine has: modaliases from sysfs, and the kernel's announcements of new devices.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::failure::{Context, Failure};

/// Buses whose devices are many and never ask for a module that an initramfs has.
const DULL: [&str; 9] = [
    "clockevents",
    "clocksource",
    "container",
    "cpu",
    "event_source",
    "machinecheck",
    "memory",
    "node",
    "workqueue",
];

/// Modaliases of all devices on all buses.
#[must_use]
pub fn modaliases() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for bus in fs::read_dir("/sys/bus").into_iter().flatten().flatten() {
        if bus
            .file_name()
            .to_str()
            .is_some_and(|name| DULL.contains(&name))
        {
            continue;
        }
        for device in fs::read_dir(bus.path().join("devices"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(text) = fs::read_to_string(device.path().join("modalias")) {
                found.insert(text.trim().to_owned());
            }
        }
    }
    found
}

/// Whole disks that the kernel has now: names under /sys/class/block, and their paths there.
#[must_use]
pub fn disks() -> Vec<(String, PathBuf)> {
    let mut found: Vec<(String, PathBuf)> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, path)| {
            // Disks with hardware behind them: not loop, ram, zram, dm, md.
            path.join("device").exists()
                && !path.join("partition").exists()
                && !name.starts_with("sr")
        })
        .collect();
    found.sort();
    found
}

/// A listener for new devices.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Starts to listen. Done before the first look, so that nothing falls between.
    ///
    /// # Errors
    /// When the kernel has no uevents for us.
    pub fn listen() -> Result<Self, Failure> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(KOBJECT_UEVENT),
        )
        .context("opening", "the kernel's uevent socket")?;
        bind(&socket, &SocketAddrNetlink::new(0, 1))
            .context("binding", "the kernel's uevent socket")?;
        Ok(Self { socket })
    }

    /// Whether devices that may want a driver have appeared since the last look. Takes all that is queued.
    pub fn new_devices(&self) -> bool {
        let mut buffer = [0u8; 8192];
        let mut any = false;
        loop {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => any |= announces_device(buffer.get(..length).unwrap_or(&buffer)),
                // More than the socket holds: some were lost.
                Err(Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }

    /// Waits until devices have appeared or changed, or `limit` is over. Takes all that is queued.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        // An interrupted or failed wait only means that the caller looks once more.
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(1..)) {
            return false;
        }
        let mut buffer = [0u8; 8192];
        while recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT).is_ok() {}
        true
    }
}

/// Whether a message says that a device with a modalias was added. Format: `ACTION@PATH`, then `KEY=VALUE`, each ended
/// by zero (the kernel's `lib/kobject_uevent.c`).
fn announces_device(message: &[u8]) -> bool {
    message.starts_with(b"add@/devices/")
        && message
            .split(|byte| *byte == 0)
            .any(|line| line.starts_with(b"MODALIAS="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_device_with_a_modalias_wants_a_driver() {
        for (message, expected) in [
            (
                &b"add@/devices/pci0/virtio2\0ACTION=add\0MODALIAS=virtio:d2v1af4\0"[..],
                true,
            ),
            (b"add@/devices/pci0/virtio2/block/vda\0ACTION=add\0", false),
            (
                b"bind@/devices/pci0/virtio2\0ACTION=bind\0MODALIAS=virtio:d2v1af4\0",
                false,
            ),
            (b"add@/module/virtio_blk\0ACTION=add\0", false),
            (b"", false),
        ] {
            assert_eq!(announces_device(message), expected);
        }
    }
}
