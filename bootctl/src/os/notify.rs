//! What systemd wants to hear from a `Type=notify` service.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket that systemd named, if there is one.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`.
    pub(crate) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let name = name.to_string_lossy().into_owned();
            let address = match name.strip_prefix('@') {
                Some(hidden) => SocketAddr::from_abstract_name(hidden).ok()?,
                None => SocketAddr::from_pathname(&name).ok()?,
            };
            Some((UnixDatagram::unbound().ok()?, address))
        });
        Self { socket }
    }

    /// Sends `text`; a lost message is noticed by systemd's watchdog, not here.
    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }

    /// Ready to be depended on.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// Still alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Going down.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }
}

/// How often to say that we are alive: half of what systemd waits, if it waits.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let ours = std::env::var("WATCHDOG_PID")
        .ok()
        .is_none_or(|pid| pid == std::process::id().to_string());
    let microseconds: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (ours && microseconds > 0).then(|| Duration::from_micros(microseconds / 2))
}
